import Foundation
import LDMModel
import Support

/// Post-hoc EMA: reconstructs an average of the weights with any relative width from the power-function
/// averages in a run's snapshots and checkpoints.
///
/// Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section
/// 3.2.
package struct AverageReconstruction: Sendable {
    /// A stored average.
    struct Source: Sendable {
        /// The snapshot or checkpoint that contains it, and the name of its folder there.
        let checkpoint: Checkpoint
        let folder: String
        let sigmaRel: Double

        var profile: PowerProfile { PowerProfile(sigmaRel: sigmaRel, step: checkpoint.manifest.step) }
        var weights: ModelFolder { ModelFolder(checkpoint.at(folder)) }
    }

    package let sigmaRel: Double
    /// Optimizer updates made at the reconstructed step.
    package let step: Int
    /// The stored averages up to this step, in ascending order.
    let sources: [Source]
    package let fit: ProfileFit

    /// Finds the stored averages of a run and computes the fit.
    ///
    /// - Parameters:
    ///   - path: a run, or one of its snapshots or checkpoints, which then determines the step.
    ///   - atStep: a step with a snapshot or checkpoint; nil for the last one.
    /// - Throws: `RunError` or `CheckpointError`.
    package init(sigmaRel: Double, of path: String, atStep: Int? = nil) throws {
        guard sigmaRel > 0, sigmaRel < PowerProfile.sigmaLimit else {
            throw RunError(
                "sigma_rel \(sigmaRel): expected more than 0 and less than 1/√12 (0.2886…), the mean of all weights"
            )
        }
        let (folders, named) = Self.places(path)
        if let named, let atStep, named != atStep {
            throw RunError(
                "--at-step \(atStep): \(path) is of step \(named); use the run instead, or omit --at-step")
        }
        let kept = try Self.sources(in: folders)
        guard let last = kept.last?.checkpoint.manifest.step else {
            throw RunError(
                "\(path): contains no power-function averages; train with ema.sigma_rel: "
                    + "[0.05, 0.1] and ema.snapshot_every to keep them", exitStatus: ExitStatus.refused)
        }
        let step = atStep ?? named ?? last
        guard kept.contains(where: { $0.checkpoint.manifest.step == step }) else {
            let steps = Set(kept.map(\.checkpoint.manifest.step)).sorted().map(String.init)
            throw RunError(
                "\(path): contains no power-function averages of step \(step), expected one of "
                    + steps.joined(separator: ", "), exitStatus: ExitStatus.refused)
        }
        self.sigmaRel = sigmaRel
        self.step = step
        sources = kept.filter { $0.checkpoint.manifest.step <= step }
        fit = ProfileFit(PowerProfile(sigmaRel: sigmaRel, step: step), from: sources.map(\.profile))
    }

    /// The folders that may contain a run's averages, and the step that the path names. Snapshots come first:
    /// if a step is in both folders, its snapshot is used, since snapshots are not pruned.
    private static func places(_ path: String) -> (folders: [CheckpointFolder], step: Int?) {
        let place = URL(fileURLWithPath: path).standardizedFileURL
        let step = CheckpointFolder.step(ofName: place.lastPathComponent)
        let folder = step == nil ? path : place.deletingLastPathComponent().path
        let run = RunFolder(CheckpointFolder(folder).run ?? folder)
        return ([run.snapshots, run.checkpoints], step)
    }

    /// The stored averages in ascending order of steps.
    private static func sources(in folders: [CheckpointFolder]) throws(CheckpointError) -> [Source] {
        var sources: [Int: [Source]] = [:]
        for folder in folders {
            for step in try folder.steps() where sources[step] == nil {
                let checkpoint = try Checkpoint(opening: folder.path(step: step))
                let averages = checkpoint.manifest.folders.compactMap { name in
                    AverageProfile(name: name)?.sigmaRel.map {
                        Source(checkpoint: checkpoint, folder: name, sigmaRel: $0)
                    }
                }
                if !averages.isEmpty { sources[step] = averages }
            }
        }
        return sources.sorted { $0.key < $1.key }.flatMap(\.value)
    }

    // MARK: Weights

    /// The weighted sum of stored averages that approximates the requested average.
    package var mixture: WeightMixture {
        WeightMixture(
            name: Self.name(sigmaRel: sigmaRel),
            parts: zip(sources, fit.factors).filter { $0.1 != 0 }.map { source, factor in
                WeightMixture.Part(source.weights, factor: factor)
            })
    }

    /// The newest snapshot or checkpoint used, and the name of an average in it. It has the same step and
    /// model as the result.
    package var newest: (path: String, folder: String) {
        guard let source = sources.last else { preconditionFailure("sources of no step") }
        return (source.checkpoint.path, source.folder)
    }

    /// Reads all source weights and compares their checksums.
    package func verify() throws(CheckpointError) {
        for source in sources { try source.checkpoint.verify(folder: source.folder) }
    }

    /// A one-line summary: the sources and the quality of the fit.
    package var summary: String {
        let steps = Set(sources.map(\.checkpoint.manifest.step)).count
        let percent = String(format: "%.2g", 100 * fit.residual)
        let advice =
            fit.residual > Self.poor
            ? "; a poor match: take snapshots more often, or choose a width closer to those of ema.sigma_rel"
            : ""
        return
            "\(Self.name(sigmaRel: sigmaRel)) of step \(step), from \(sources.count) averages of \(steps) steps, "
            + "deviates from its profile by \(percent) %\(advice)"
    }

    private static let poor = 0.05

    // MARK: Names

    private static let prefix = "sigma-rel-"

    /// The name as given to `--weights`, such as "sigma-rel-0.08".
    package static func name(sigmaRel: Double) -> String { "\(prefix)\(sigmaRel)" }

    /// The relative width in such a name; nil for any other name.
    package static func sigmaRel(ofName name: String) -> Double? {
        name.hasPrefix(prefix) ? Double(name.dropFirst(prefix.count)) : nil
    }
}
