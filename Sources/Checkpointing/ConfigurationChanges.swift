import Configuration
import FileFormats
import Foundation
import Support

/// A key whose value differs from the checkpoint's.
struct ConfigurationChange {
    let key: String
    /// nil if the key is absent.
    let old: ConfigNode?
    let new: ConfigNode?

    /// "train.steps was 100, is 200".
    var text: String { "\(key) was \(Self.text(old)), is \(Self.text(new))" }

    private static func text(_ node: ConfigNode?) -> String {
        node.map { YAMLNode.text($0).trimmingCharacters(in: .newlines) } ?? "not given"
    }

    /// For lists: whether all elements of the new list are in the old one.
    var isSubset: Bool {
        guard case .sequence(let old) = old?.value, case .sequence(let new) = new?.value else { return false }
        return new.allSatisfy { element in old.contains { $0.json == element.json } }
    }
}

/// The differences, key by key, between the run that wrote a checkpoint and the run that resumes from it.
package struct ConfigurationChanges {
    let changes: [ConfigurationChange]

    package init(from old: RunIdentity, to new: RunIdentity) {
        // A U-Net and an autoencoder cannot be compared; the mismatch of their tensors is reported instead.
        guard old.modelFolder == new.modelFolder else {
            changes = []
            return
        }
        // Earlier versions computed the fingerprint differently; treat an old fingerprint of the same data as
        // equal.
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
    ///   - allowed: the harmful changes that the user permits.
    ///   - path: the checkpoint's path, for errors.
    /// - Returns: a phrase for each change that is accepted.
    /// - Throws: `RunError` with all changes that are rejected, the reasons, and what to do.
    package func check(_ allowed: AllowedChanges, of path: String) throws(RunError) -> [String] {
        var notes: [String] = []
        var problems: [String] = []
        var toAllow: [String] = []
        var isPossible = true
        for change in changes {
            switch ResumeRules.effect(of: change) {
            case .harmless: notes.append(change.text)
            case .harmful where allowed.contains(change.key):
                notes.append("\(change.text) (accepted by --allow-change)")
            case .harmful(let reason):
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
            ? "undo this, or accept it with --allow-change \(toAllow.joined(separator: ","))"
            : "undo this, or start a new run with another --output"
        throw RunError(
            "\(path): was written with a different configuration: \(problems.joined(separator: "; ")); \(remedy)"
        )
    }

    // MARK: Keys and values

    private typealias Leaves = [(key: String, node: ConfigNode)]

    /// The keys and values of both runs, with the fingerprints of their training data and first stage.
    private static func trees(_ old: RunIdentity, _ new: RunIdentity) -> (Leaves, Leaves) {
        // Parse the checkpoint's configuration with this version, which fills in today's defaults for keys
        // that it lacks. A configuration that can no longer be parsed is compared as it is.
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

    /// The keys of a configuration, in the form that `--set` accepts, with their values.
    package static func leaves(_ node: ConfigNode, _ path: [String] = []) -> [(key: String, node: ConfigNode)]
    {
        guard let entries = node.entries else {
            return path.isEmpty ? [] : [(path.joined(separator: "."), node)]
        }
        return entries.flatMap { leaves($0.node, path + [$0.key]) }
    }
}
