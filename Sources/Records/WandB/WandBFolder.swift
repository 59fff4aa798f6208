import Foundation
import Support

/// The folder of an offline Weights & Biases run, `offline-run-20300102_030405-abcd1234`, in the layout that
/// `wandb sync` reads.
struct WandBFolder {
    /// The run id: eight letters and digits.
    let id: String
    let path: String

    /// The log with all records. The other files can be reconstructed from it, except the pictures.
    var log: String { "\(path)/run-\(id).wandb" }
    var files: String { "\(path)/files" }

    private static let prefix = "offline-run-"

    /// Names the folder of a new run; does not create it.
    init(in parent: String, startedAt seconds: Double) {
        var time = time_t(seconds)
        var calendar = tm()
        localtime_r(&time, &calendar)
        var text = [CChar](repeating: 0, count: 32)
        strftime(&text, text.count, "%Y%m%d_%H%M%S", &calendar)
        id = String((0..<8).map { _ in "abcdefghijklmnopqrstuvwxyz0123456789".randomElement()! })
        path = "\(parent)/\(Self.prefix)\(String(terminated: text))-\(id)"
    }

    private init?(_ name: String, in parent: String) {
        guard name.hasPrefix(Self.prefix), let dash = name.lastIndex(of: "-") else { return nil }
        id = String(name[name.index(after: dash)...])
        path = "\(parent)/\(name)"
        guard !id.isEmpty, FileManager.default.fileExists(atPath: log) else { return nil }
    }

    /// The runs in a folder, sorted by name.
    static func all(in parent: String) -> [WandBFolder] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
        return names.sorted().compactMap { WandBFolder($0, in: parent) }
    }

    /// The path of a picture relative to `files`. The file name contains the step and the start of the
    /// content's SHA-256.
    static func picture(name: String, step: Int, sha256: String) -> String {
        "media/images/\(name)_\(step)_\(sha256.prefix(20)).png"
    }

    /// Removes pictures of later steps than `step`.
    func cutPicturesBack(to step: Int) throws(FileError) {
        let folder = "\(files)/media/images"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
            let words = name.split(separator: "_")
            guard name.hasSuffix(".png"), words.count >= 3, let found = Int(words[words.count - 2]),
                found > step
            else { continue }
            if unlink("\(folder)/\(name)") != 0 {
                throw FileError("\(folder)/\(name)", "cannot be removed: \(systemReason())", code: errno)
            }
        }
    }

    /// Removes the marker file of an earlier `wandb sync`, which otherwise skips the run, so that a continued
    /// run is uploaded again.
    func forgetSync() { unlink("\(log).synced") }
}
