import FileFormats
import Foundation
import Harness

/// A folder with two shards, and with what may stand in a shard's place: a pipe, a folder, a link to nowhere.
private let folder: String = {
    do {
        let path = NSTemporaryDirectory() + "fuzz-index-\(getpid())"
        try FileManager.default.createDirectory(atPath: path + "/folder", withIntermediateDirectories: true)
        try SafetensorsWriter.write([("a", [2], [1, 2]), ("b", [1], [3])], to: path + "/x.safetensors")
        try SafetensorsWriter.write([("c", [1, 1], [4])], to: path + "/y.safetensors")
        mkfifo(path + "/pipe", 0o600)
        symlink("/nowhere", path + "/link")
        return path
    } catch {
        fatalError("\(error)")
    }
}()
private let index = ScratchFile(folder + "/model.safetensors.index.json")

/// An index, alone and with the shards that it names.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    index.set(start, count)
    expectCleanly {
        let map = try SafetensorsIndex(contentsOf: index.path).weightMap
        precondition(map.values.allSatisfy { !$0.utf8.contains(UInt8(ascii: "/")) && !$0.utf8.contains(0) })
        let files = try WeightFiles(path: folder)
        precondition(files.names.count == map.count && files.files.allSatisfy { $0.path.hasPrefix(folder) })
        for name in files.names {
            let (floats, info) = (try files.floats(of: name), try files.info(of: name))
            precondition(floats.count == info.count)
        }
    }
    return 0
}
