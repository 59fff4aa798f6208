import Configuration
import FileFormats
import Foundation
import Support

/// A key whose value is not the checkpoint's.
struct ConfigurationChange {
    package let key: String
    /// nil where the key is not there.
    let old: ConfigNode?
    let new: ConfigNode?

    /// "train.steps was 100, is 200".
    var text: String { "\(key) was \(Self.text(old)), is \(Self.text(new))" }

    private static func text(_ node: ConfigNode?) -> String {
        node.map { YAMLNode.text($0).trimmingCharacters(in: .newlines) } ?? "not given"
    }

    /// Of lists: whether everything new was there before.
    var isSubset: Bool {
        guard case .sequence(let old) = old?.value, case .sequence(let new) = new?.value else { return false }
        return new.allSatisfy { element in old.contains { $0.json == element.json } }
    }
}

/// What differs between the run that made a checkpoint and the one that goes on from it, key by key.
package struct ConfigurationChanges {
    let changes: [ConfigurationChange]

    package init(from old: RunIdentity, to new: RunIdentity) {
        // Of a U-Net and an autoencoder there is nothing to compare; their tensors tell them apart.
        guard old.modelFolder == new.modelFolder else {
            changes = []
            return
        }
        // A checkpoint of an earlier version has a fingerprint by another rule, of data that may be the same.
        var new = new
        if let fingerprint = old.datasetFingerprint, fingerprint != new.datasetFingerprint,
            new.earlierDatasetFingerprint?.matches(fingerprint) == true
        {
            new.datasetFingerprint = fingerprint
        }
        let (before, after) = Self.trees(old, new)
        let names = before.map(\.key) + after.map(\.key).filter { key in !before.contains { $0.key == key } }
        changes = names.compactMap { name in
            let change = ConfigurationChange(
                key: name, old: before.first { $0.key == name }?.node,
                new: after.first { $0.key == name }?.node)
            return change.old?.json == change.new?.json ? nil : change
        }
    }

    /// - Parameters:
    ///   - allowed: what may change although it does harm.
    ///   - path: the checkpoint.
    /// - Returns: a phrase for each change that the run follows.
    /// - Throws: `RunError` with all changes that are not followed, why, and what to do.
    package func check(_ allowed: AllowedChanges, of path: String) throws(RunError) -> [String] {
        var notes: [String] = []
        var problems: [String] = []
        var toAllow: [String] = []
        var isPossible = true
        for change in changes {
            switch ResumeRules.effect(of: change) {
            case .noted: notes.append(change.text)
            case .refused where allowed.contains(change.key):
                notes.append("\(change.text), as --allow-change says")
            case .refused(let reason):
                problems.append("\(change.text) (\(reason))")
                toAllow.append(change.key)
            case .impossible(let reason):
                problems.append("\(change.text) (\(reason))")
                isPossible = false
            }
        }
        if problems.isEmpty { return notes }
        let remedy =
            isPossible
            ? "undo this, or go on all the same with --allow-change \(toAllow.joined(separator: ","))"
            : "undo this, or start another run with another --output"
        throw RunError(
            "\(path): was made with another configuration: \(problems.joined(separator: "; ")); \(remedy)")
    }

    // MARK: Keys and values

    private typealias Leaves = [(key: String, node: ConfigNode)]

    /// Both runs' keys with their values, and the fingerprints of what they were trained on.
    private static func trees(_ old: RunIdentity, _ new: RunIdentity) -> (Leaves, Leaves) {
        // Read as this program reads it, the checkpoint's configuration has today's defaults for keys that are
        // younger than it. One that cannot be read any more is compared as it stands.
        if let before = resolved(old), let after = resolved(new) {
            return (leaves(before) + fingerprints(old), leaves(after) + fingerprints(new))
        }
        return (leaves(raw(old)) + fingerprints(old), leaves(raw(new)) + fingerprints(new))
    }

    private static func resolved(_ run: RunIdentity) -> ConfigNode? {
        run.modelFolder == "vae"
            ? (try? AutoencoderConfiguration(yaml: run.configuration, source: "the checkpoint"))?.node
            : (try? Configuration(yaml: run.configuration, source: "the checkpoint"))?.node
    }

    private static func raw(_ run: RunIdentity) -> ConfigNode {
        (try? YAMLNode.parse(run.configuration, source: "the checkpoint")) ?? .mapping([:])
    }

    private static func fingerprints(_ run: RunIdentity) -> Leaves {
        let scaling = run.firstStage.map { [$0.scalingFactor, $0.shiftFactor] }
        return [
            (ResumeRules.dataFingerprint, .string(run.datasetFingerprint)),
            (ResumeRules.firstStageFingerprint, .string(run.firstStage?.weightsHash)),
            (ResumeRules.firstStageScaling, scaling.map { .numbers($0) } ?? .string(nil)),
        ]
    }

    /// The keys of a configuration with their values, as `--set` names them.
    package static func leaves(_ node: ConfigNode, _ path: [String] = []) -> [(key: String, node: ConfigNode)]
    {
        guard let entries = node.entries else {
            return path.isEmpty ? [] : [(path.joined(separator: "."), node)]
        }
        return entries.flatMap { leaves($0.node, path + [$0.key]) }
    }
}
