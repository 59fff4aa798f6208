import Checkpointing
import Configuration
import FileFormats
import Foundation
import Records
import Support

/// The readable contents of a run folder, for a report. The run may be finished, running or aborted.
package struct ReportedRun {
    package let folder: RunFolder
    /// The run's label in the report: its name, or its folder if another run has the same name.
    package var label: String
    /// `config.yaml` as a tree; nil if it cannot be read.
    package let settings: ConfigNode?
    package let configuration: Configuration?
    package let autoencoder: AutoencoderConfiguration?
    /// The first line of metrics.jsonl.
    package let description: JSONObject?
    /// Logged steps, ascending.
    package let steps: [StepMetrics]
    /// Floating-point operations per image and step; nil if no record has the number.
    package let flopsPerImage: Double?
    package let sessions: [ReportedSession]
    package let unreadableLines: Int
    /// Sample grids, ascending by step.
    package let samples: [(step: Int, path: String)]
    package let checkpoints: [Int]
    package let status: JobStatus?
    package let launch: LaunchRecord?
    package let evaluations: [ReportedEvaluation]

    /// - Throws: `ReportError` if the path is not a run folder.
    package init(_ path: String) throws {
        let folder = RunFolder(path)
        guard FileManager.default.fileExists(atPath: path) else {
            throw ReportError(path, "no such folder; expected a run folder, such as runs/NAME")
        }
        let files = [folder.configuration, folder.metrics]
        guard files.contains(where: FileManager.default.fileExists) else {
            throw ReportError(
                path,
                "contains neither config.yaml nor metrics.jsonl; expected a run folder, such as runs/NAME"
            )
        }
        self.folder = folder
        let yaml = try? ConfigurationFile.read(folder.configuration)
        settings = yaml.flatMap { try? YAMLNode.parse($0, source: folder.configuration) }
        configuration = yaml.flatMap { try? Configuration(yaml: $0, source: folder.configuration) }
        autoencoder = yaml.flatMap { try? AutoencoderConfiguration(yaml: $0, source: folder.configuration) }
        let history = try? MetricsHistory(contentsOf: folder.metrics)
        description = history?.run
        flopsPerImage =
            history?.records.reversed().lazy.compactMap { $0["flop_per_image"]?.doubleValue }.first
        steps = StepMetrics.all(in: history?.records ?? [])
        sessions = ReportedSession.all(in: history?.records ?? [])
        unreadableLines = history?.unreadableLines ?? 0
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.samples)) ?? []
        samples =
            names.compactMap { name in
                RunFolder.step(ofSamples: name).map { (step: $0, path: "\(folder.samples)/\(name)") }
            }.sorted { $0.step < $1.step }
        checkpoints = (try? folder.checkpoints.steps()) ?? []
        status = JobStatus.read(path)
        launch = LaunchRecord.read(path)
        evaluations = ReportedEvaluation.all(in: path)
        label = settings?["name"]?.text ?? (path as NSString).lastPathComponent
    }

    /// Opens runs and gives each a unique label.
    package static func open(_ paths: [String]) throws -> [ReportedRun] {
        var runs = try paths.map { try ReportedRun($0) }
        for label in Set(runs.map(\.label)) {
            let same = runs.indices.filter { runs[$0].label == label }
            guard same.count > 1 else { continue }
            let names = same.map { (runs[$0].folder.path as NSString).standardizingPath }
            let short = names.map { ($0 as NSString).lastPathComponent }
            for (place, index) in same.enumerated() {
                runs[index].label = Set(short).count == same.count ? short[place] : names[place]
            }
        }
        return runs
    }

    // MARK: State

    package enum State {
        case finished, running
        /// Stopped on request, with a checkpoint.
        case stopped
        /// Failed or killed.
        case interrupted
        case notStarted
    }

    /// Seconds without a status update after which a running job is considered dead.
    private static let silence = 120.0

    package func state(now: Double) -> State {
        if let lastStep, let plannedSteps, lastStep >= plannedSteps { return .finished }
        guard let status else { return steps.isEmpty && checkpoints.isEmpty ? .notStarted : .interrupted }
        switch status.state {
        case .finished: return .finished
        case .stopped: return .stopped
        case .failed: return .interrupted
        case .running: return now - status.updatedAt < Self.silence ? .running : .interrupted
        }
    }

    package var plannedSteps: Int? { train?.steps ?? status?.steps }
    package var lastStep: Int? { steps.last?.step }
    package var train: TrainConfiguration? { configuration?.train ?? autoencoder?.train }
    package var optimizer: OptimizerConfiguration? { configuration?.optimizer ?? autoencoder?.optimizer }
    package var data: DataConfiguration? { configuration?.data ?? autoencoder?.data }

    /// Seconds spent training, including samples and checkpoints between steps.
    package var trainedSeconds: Double { sessions.map(\.seconds).reduce(0, +) }

    /// The run's `report` folder, which holds the pictures made of the model for reports.
    package var pictureFolder: String { "\(folder.path)/report" }

    /// Whether the run has weights to sample from.
    package var hasWeights: Bool {
        configuration != nil && (!checkpoints.isEmpty || FileManager.default.fileExists(atPath: folder.model))
    }
}

extension ConfigNode {
    /// A scalar as text; nil for null, lists and sections.
    package var text: String? {
        switch value {
        case .bool(let value): return String(value)
        case .integer(let value): return String(value)
        case .number(let value): return String(value)
        case .string(let value): return value
        case .null, .sequence, .mapping: return nil
        }
    }

    /// Every value with its path, such as ("optimizer.betas", "[0.9, 0.999]").
    package func flattened(_ prefix: String = "") -> [(key: String, value: String)] {
        switch value {
        case .mapping(let entries):
            return entries.flatMap { $0.node.flattened(prefix.isEmpty ? $0.key : "\(prefix).\($0.key)") }
        case .sequence(let nodes):
            return [(prefix, "[" + nodes.map { $0.text ?? "…" }.joined(separator: ", ") + "]")]
        default: return [(prefix, text ?? "null")]
        }
    }
}
