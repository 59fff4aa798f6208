import Foundation

/// `disttrain checkpoint verify`: reads every byte of a checkpoint, or of all checkpoints of a run, and names
/// each damaged file and tensor.
package struct CheckpointAudit {
    let path: String
    let checkpoints: [String]

    package init(of path: String) throws(CheckpointError) {
        self.path = path
        checkpoints = try CheckpointFolder.checkpoints(at: path).reversed()
    }

    /// - Parameter report: called with one line at a time.
    /// - Throws: if a checkpoint is damaged, after all have been read.
    package func run(_ report: (String) -> Void) throws(CheckpointError) {
        var damaged = 0
        for path in checkpoints {
            let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
            let (faults, size) = faults(of: path)
            guard !faults.isEmpty else {
                report("\(name): whole, \(size)".oneLine())
                continue
            }
            damaged += 1
            for fault in faults { report("\(name): \(fault)".oneLine()) }
        }
        guard damaged > 0 else { return }
        throw CheckpointError(
            .damaged, path,
            checkpoints.count == 1
                ? "is not whole" : "\(damaged) of \(checkpoints.count) checkpoints are not whole")
    }

    private func faults(of path: String) -> (faults: [String], size: String) {
        do throws(CheckpointError) {
            let checkpoint = try Checkpoint(manifestOf: path)
            let size = "\(checkpoint.manifest.files.count) files, \(byteText(checkpoint.bytes))"
            return (checkpoint.damage().map(checkpoint.told), size)
        } catch {
            return (["\((error.path as NSString).lastPathComponent): \(error.detail)"], "")
        }
    }
}
