import FileFormats
import Foundation
import Harness
import Support

private let file = ScratchFile(NSTemporaryDirectory() + "fuzz-\(getpid()).bin")

/// A file of torch.save; or, where the input begins like a pickle, a whole archive with it as data.pkl and 64 bytes as
/// storage 0, since few changed inputs would get past the archive's structure.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    let storage = [UInt8](repeating: 0x3F, count: 64)
    let archive = input.first == 0x80 ? zip([("x/data.pkl", input), ("x/data/0", storage)]) : input
    archive.withUnsafeBufferPointer { file.set($0.baseAddress, $0.count) }
    expectCleanly {
        let weights = try WeightFiles(path: file.path)
        for name in weights.names {
            let info = try weights.info(of: name)
            precondition(info.count <= archive.count)
            guard info.dtype.isFloatingPoint else { continue }
            precondition(try weights.floats(of: name).count == info.count)
        }
    }
    return 0
}
