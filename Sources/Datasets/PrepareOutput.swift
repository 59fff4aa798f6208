import FileFormats
import Foundation
import Imaging
import LDMModel
import Support

/// Creates the output folder, or reuses one of the same job; removes incomplete files of a crash.
func takeOutputFolder(_ folder: String, _ job: PrepareJob) throws(DatasetError) {
    let manager = FileManager.default
    let progress = "\(folder)/\(PrepareRecord.folderName)"
    let entries = (try? manager.contentsOfDirectory(atPath: folder)) ?? []
    let isOurs = entries.contains(PreparedManifest.fileName) || entries.contains(PrepareRecord.folderName)
    if let foreign = entries.sorted().first(where: { !$0.hasPrefix(".") }), !isOurs {
        throw DatasetError(
            .mismatch,
            "\(folder): not empty and not a prepared folder (it contains \(foreign)); choose another --output"
        )
    }
    if entries.contains(PreparedManifest.fileName) {
        let earlier = try PreparedManifest.read(folder: folder).job
        guard earlier == job else {
            throw DatasetError(
                .mismatch,
                "\(folder): contains a different dataset (\(job.difference(from: earlier))); choose another --output, "
                    + "or delete it"
            )
        }
    }
    guard makeFolder(folder), makeFolder(progress) else {
        let code = errno
        throw DatasetError(.inaccessible, "\(progress): cannot be created: \(systemReason(code))", code: code)
    }
    for inside in [folder, progress] {
        for name in (try? manager.contentsOfDirectory(atPath: inside)) ?? [] where name.contains(".partial-")
        {
            unlink("\(inside)/\(name)")
        }
    }
    // Detect an unwritable folder now, not after an hour of encoding.
    let probe = "\(progress)/.write-test"
    do {
        try AtomicFile.write([0], to: probe)
    } catch {
        throw DatasetError(
            .inaccessible, "\(folder): cannot be written to: \(error.detail)", code: error.code)
    }
    unlink(probe)
}

/// Creates a folder and its missing parents; sets errno on failure.
private func makeFolder(_ path: String) -> Bool {
    if mkdir(path, 0o777) == 0 { return true }
    if errno == EEXIST {
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { return true }
        errno = ENOTDIR
        return false
    }
    guard errno == ENOENT else { return false }
    let parent = (path as NSString).deletingLastPathComponent
    guard !parent.isEmpty, parent != path, makeFolder(parent) else { return false }
    return mkdir(path, 0o777) == 0 || errno == EEXIST
}

/// Waits up to 3 s for a file to appear, because a network file system may show another host's file with a
/// delay.
package func awaiting<Value>(_ path: String, _ body: () throws -> Value) throws -> Value {
    for _ in 0..<10 where !FileManager.default.fileExists(atPath: path) { usleep(300_000) }
    return try body()
}

/// The `errno` behind a file error; 0 if there is none.
func fileErrorCode(_ error: any Error) -> Int32 {
    switch error {
    case let error as DatasetError: error.code
    case let error as ImageError: error.code
    case let error as FileError: error.code
    case let error as SafetensorsError: error.code
    default: 0
    }
}

/// The source fingerprint of existing work in an output folder: that of its manifest, or of the first
/// finished shard; nil if there is none.
func earlierSourceFingerprint(_ folder: String) -> String? {
    if let manifest = try? PreparedManifest.read(folder: folder) { return manifest.job.sourceFingerprint }
    let names =
        (try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(PrepareRecord.folderName)")) ?? []
    return names.sorted().lazy.compactMap {
        PrepareRecord.read("\(folder)/\(PrepareRecord.folderName)/\($0)")
    }
    .first?.job.sourceFingerprint
}

/// Converts errors of images, files and models to `DatasetError`, or to a storage fault if storage failed.
package func asDatasetError<Value>(_ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch let error as ImageError {
        throw DatasetError(.inaccessible, error.description, code: error.code)
    } catch let error as FileError {
        throw DatasetError(.inaccessible, error.description, code: error.code)
    } catch let error as ConfigError {
        throw DatasetError(.mismatch, error.description)
    } catch let error as ModelFolderError {
        throw DatasetError(.mismatch, error.description)
    } catch let error as SafetensorsError {
        throw DatasetError(.damaged, error.description, code: error.code)
    } catch let error as FirstStageError {
        throw DatasetError(.mismatch, error.description)
    }
}
