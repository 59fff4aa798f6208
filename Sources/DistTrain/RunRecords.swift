import Checkpointing
import Communication
import Configuration
import Foundation
import Imaging
import Records
import Support
import Synchronization

/// The records of a training run: metrics, sample images, progress. Files are written on rank 0.
///
/// `metrics.jsonl` must be writable. Everything else is auxiliary: a failure is reported without stopping the
/// training, and the file is written again at the next interval.
final class RunRecords {
    /// metrics.jsonl after it has been opened, for the thread that commits checkpoints.
    let metricsFile = SharedValue<AppendedFile>()
    private let folder: RunFolder
    private let communicator: Communicator
    private let watcher: JobWatcher
    /// Set on rank 0 when training has begun.
    private var recorder: RunRecorder?
    private var progress: TrainingProgress?

    init(_ folder: RunFolder, _ communicator: Communicator, _ watcher: JobWatcher) {
        (self.folder, self.communicator, self.watcher) = (folder, communicator, watcher)
    }

    /// Opens the records and truncates them to the step at which the run resumes. Collective.
    func open(
        _ description: RunDescription, configuration: String, logging: LoggingConfiguration, steps: Int,
        resumedStep: Int?
    ) throws {
        try communicator.collectively("writing config.yaml") {
            if communicator.isRoot { try folder.writeConfiguration(configuration) }
        }
        try communicator.collectively("opening metrics.jsonl") {
            guard communicator.isRoot else { return }
            let progress = TrainingProgress(total: steps, first: resumedStep ?? 0)
            let recorder = try RunRecorder(
                folder, description, configuration: configuration, logging: logging, resumedStep: resumedStep,
                host: communicator.hostName, onProblem: { progress.note($0) })
            metricsFile.current = recorder.metricsFile
            (self.progress, self.recorder) = (progress, recorder)
        }
        try writeAuxiliary("resetting the samples to step \(resumedStep ?? 0)") {
            try folder.cutPicturesBack(to: resumedStep)
        }
    }

    func append(_ row: StepMetrics) {
        recorder?.append(row)
        if let progress { watcher.note(progress.update(row)) }
    }

    func append(_ result: EvaluationResult, step: Int) {
        recorder?.append(result, step: step)
        progress?.note("step \(step)  \(result.summary)")
    }

    /// Writes sample images and the loss curve. Collective.
    ///
    /// - Parameter images: on rank 0; nil elsewhere.
    func write(_ images: Image?, step: Int, name: String) throws {
        try writeAuxiliary("writing the samples of step \(step)") {
            guard let images else { return }
            let png = images.pngData(text: ["run": name, "step": String(step)])
            // Append first: a run that resumes here skips images that are already in the folder.
            recorder?.append(picture: png, width: images.width, height: images.height, step: step)
            try FileManager.default.createDirectory(atPath: folder.samples, withIntermediateDirectories: true)
            try Image.write(png: png, to: folder.samples(step: step))
            try LossCurve(folder).write()
        }
    }

    /// Whether a file of the run exists, the same on every rank. Collective.
    func exists(_ path: String) throws -> Bool {
        try communicator.fromRoot("looking for \(path)") { FileManager.default.fileExists(atPath: path) }
    }

    /// Flushes the records to the disk.
    func synchronize() { recorder?.synchronize() }

    func finishProgress() { progress?.finish() }

    func finish(exitStatus: Int32) { recorder?.finish(exitStatus: exitStatus) }

    /// Collective; throws if the folder no longer belongs to this run.
    private func writeAuxiliary(_ what: String, _ body: () throws -> Void) throws {
        try communicator.collectively(what) {
            guard communicator.isRoot else { return }
            try folder.lock?.check()
            do {
                try body()
            } catch {
                printLine("Warning: \(what) failed, training continues: \(FailureReport(error).message)")
            }
        }
    }
}

/// A value that is set by one thread and read by others.
final class SharedValue<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    var current: Value? {
        get { value.withLock { $0 } }
        set { value.withLock { $0 = newValue } }
    }
}
