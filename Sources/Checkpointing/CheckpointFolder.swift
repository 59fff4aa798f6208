import Foundation
import Support

/// The `checkpoints` folder of a run. Checkpoints are ordered by the step in their names, not by file times.
///
/// Names: `step-00015000` is a complete checkpoint; `.partial-00015000-ID` is being written or deleted and is
/// removed at the next start; `superseded-00015000-ID` is later than a step to which the run was rolled back.
package struct CheckpointFolder: Sendable, Equatable {
    package let path: String

    package init(_ path: String) { self.path = path }

    package static func name(step: Int) -> String { "step-\(padded(step, digits: 8))" }

    /// The step in a checkpoint's name; nil for any other name.
    package static func step(ofName name: String) -> Int? {
        guard name.hasPrefix("step-") else { return nil }
        let digits = name.dropFirst(5)
        guard digits.count >= 8, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(digits)
    }

    package func path(step: Int) -> String { at(Self.name(step: step)) }

    /// The temporary folder in which a checkpoint is written.
    package func partialPath(step: Int, id: String) -> String {
        at(".partial-\(padded(step, digits: 8))-\(id)")
    }

    private func at(_ name: String) -> String { (path as NSString).appendingPathComponent(name) }

    /// The steps of all checkpoints, ascending; empty if the folder does not exist.
    package func steps() throws(CheckpointError) -> [Int] {
        try entries().compactMap { Self.step(ofName: $0) }.sorted()
    }

    /// The names of all entries of the folder.
    func entries() throws(CheckpointError) -> [String] {
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        do {
            return try FileManager.default.contentsOfDirectory(atPath: path)
        } catch {
            throw CheckpointError(
                .inaccessible, path, "cannot be listed: \(systemReason(of: error))",
                code: systemCode(of: error))
        }
    }

    /// Removes what an interrupted save or deletion has left behind. For one rank, while no save is in
    /// progress.
    ///
    /// - Parameter undeletable: called for each leftover that cannot be removed; it only takes space.
    /// - Returns: the names removed.
    @discardableResult
    package func clearPartial(
        undeletable: (CheckpointError) -> Void = { _ in }
    ) throws(CheckpointError) -> [String] {
        try entries().filter { $0.hasPrefix(".partial-") }.sorted().filter { name in
            do throws(CheckpointError) {
                try remove(at(name))
                return true
            } catch {
                undeletable(error)
                return false
            }
        }
    }

    /// Deletes a checkpoint. For one rank.
    package func remove(step: Int) throws(CheckpointError) {
        // Rename before deleting, since a partly deleted checkpoint under its final name would look damaged.
        let doomed = partialPath(
            step: step, id: "expired-" + String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16))
        if rename(path(step: step), doomed) != 0 {
            throw CheckpointError.system(path(step: step), "cannot be deleted")
        }
        try remove(doomed)
    }

    /// Renames the checkpoints after `step`, to which the run was rolled back, so that their steps can be
    /// saved again. They remain on the disk until the user deletes them. For one rank.
    ///
    /// - Returns: the new paths.
    @discardableResult
    package func setAside(after step: Int, id: String) throws(CheckpointError) -> [String] {
        var moved: [String] = []
        for later in try steps() where later > step {
            let aside = at("superseded-\(padded(later, digits: 8))-\(id)")
            if rename(path(step: later), aside) != 0 {
                throw CheckpointError.system(path(step: later), "cannot be renamed")
            }
            moved.append(aside)
        }
        return moved
    }

    /// Removes a folder and its contents.
    package func remove(_ path: String) throws(CheckpointError) {
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            throw CheckpointError(
                .inaccessible, path, "cannot be removed: \(systemReason(of: error))",
                code: systemCode(of: error))
        }
    }
}
