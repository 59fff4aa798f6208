import FileFormats
import Foundation
import LDMModel
import Support

/// Runs what reads hostile bytes. It may refuse them with an error that the program knows, told in one line of
/// bounded length; everything else ends the process, and libFuzzer keeps the input.
///
/// - Parameter knows: whether an error is one that a target of other modules expects.
public func expectCleanly(knows: (any Error) -> Bool = { _ in false }, _ body: () throws -> Void) {
    do {
        try body()
    } catch {
        let known =
            error is SafetensorsError || error is ConfigError || error is ModelFolderError
            || error is JSONError || knows(error)
        let text = String(describing: error)
        precondition(known, "an error of another kind: \(type(of: error))")
        precondition(text.utf8.count < 20_000, "an error of \(text.utf8.count) bytes")
        let breaks = text.unicodeScalars.contains { $0.properties.generalCategory == .control }
        precondition(!breaks, "an error of several lines")
    }
}

/// A file in the temporary folder whose contents change from run to run.
public struct ScratchFile: Sendable {
    public let path: String
    private let descriptor: Int32

    public init(_ path: String = NSTemporaryDirectory() + "fuzz-\(getpid())") {
        self.path = path
        descriptor = open(path, O_RDWR | O_CREAT, 0o600)
        precondition(descriptor >= 0, "\(path) cannot be made")
    }

    public func set(_ start: UnsafePointer<UInt8>?, _ count: Int) {
        precondition(ftruncate(descriptor, 0) == 0 && pwrite(descriptor, start, count, 0) == count)
    }
}
