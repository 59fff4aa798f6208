import Configuration
import FileFormats
import Foundation
import Support

/// Which changes of the configuration are accepted when a run resumes from a checkpoint. The keys' declarations
/// say what a change of each means (``ChangeEffect``); docs/configuration.md lists them.
package enum ResumeRules {
    /// All keys, in the form that `--set` accepts.
    package static let effects: [String: ChangeEffect] = {
        let keys = Configuration.descriptions() + AutoencoderConfiguration.descriptions()
        let declared = keys.flatMap(\.leaves).map { ($0.name, $0.change) }
        return Dictionary(declared + contents, uniquingKeysWith: { first, _ in first })
    }()

    /// Properties of the data and first stage to which the configuration refers.
    private static let contents: [(String, ChangeEffect)] = [
        (dataFingerprint, .otherData),
        (firstStageFingerprint, .harmful("the model was trained on different latents")),
        (firstStageScaling, .harmful("the model was trained on different latents")),
    ]
    static let dataFingerprint = "data.fingerprint"
    static let firstStageFingerprint = "first_stage.fingerprint"
    static let firstStageScaling = "first_stage.scaling"

    /// The effect of a change. A key that is not declared comes from another version of this program and has no
    /// effect in this one, so its change is only reported.
    static func effect(of change: ConfigurationChange) -> ChangeEffect {
        if ["ema.decays", "ema.sigma_rel"].contains(change.key), !change.isSubset {
            return .impossible("there is no average to continue")
        }
        return effects[change.key] ?? .harmless
    }
}

/// Keys that the user allows to change: `--allow-change KEY[,KEY…]`.
package struct AllowedChanges: Sendable, Equatable {
    package static let none = AllowedChanges(names: [])

    private let names: [String]

    package var description: String { names.sorted().joined(separator: ",") }

    private init(names: [String]) { self.names = names }

    /// - Parameter texts: keys, or sections for all of their keys; one text can contain several, separated by
    ///   commas.
    /// - Throws: `RunError` for an unknown name, with the most similar one.
    package init(_ texts: [String]) throws(RunError) {
        names = texts.flatMap { $0.split(separator: ",") }.map {
            String($0).trimmingCharacters(in: .whitespaces)
        }
        for name in names where ResumeRules.effects[name] == nil && !Self.isSection(name) {
            let hint =
                nearestName(to: name, among: ResumeRules.effects.keys.sorted()).map {
                    "; did you mean '\($0)'?"
                } ?? ""
            throw RunError("--allow-change \(name): is not a configuration key\(hint)")
        }
    }

    private static func isSection(_ name: String) -> Bool {
        ResumeRules.effects.keys.contains { $0.hasPrefix("\(name).") }
    }

    func contains(_ key: String) -> Bool { names.contains { key == $0 || key.hasPrefix("\($0).") } }
}
