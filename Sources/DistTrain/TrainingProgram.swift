import Checkpointing
import Communication
import Configuration
import Datasets
import LDMModel
import Records
import Support
import TensorCore

/// `disttrain train` or `disttrain vae train`: opens the data, creates the model, and trains it.
package struct TrainingProgram<Values: TrainableConfiguration> {
    package let configuration: Values
    package let output: String
    package let resume: Resume
    package let allowedChanges: AllowedChanges
    package let watching: Watching

    /// - Parameter output: the run's folder; by default `runs/NAME`.
    package init(
        _ configuration: Values, output: String?, resume: Resume,
        allowedChanges: AllowedChanges = AllowedChanges.none, watching: Watching = Watching()
    ) {
        self.watching = watching
        self.configuration = configuration
        self.output = output ?? "runs/\(configuration.name)"
        self.resume = resume
        self.allowedChanges = allowedChanges
    }

    /// Trains while the ranks are watched. Collective.
    package func train(_ communicator: Communicator) throws {
        try JobWatcher.watch(communicator, watching.limits) { try train(communicator, $0) }
    }

    /// Trains on ranks that are already being watched. Collective.
    package func train(_ communicator: Communicator, _ watcher: JobWatcher) throws {
        var c = configuration
        try StartAgreement.compareCommands(
            c.node, output: output, resume: resume, allowedChanges: allowedChanges, communicator)
        try c.train.agreeOnPrecision(communicator)
        let task = try c.makeTask(
            TaskSetup(
                folder: RunFolder(output), resume: resume, communicator: communicator,
                activity: watcher.activity))
        watcher.activity.enter(.openRun)
        let folder = try RunFolder.open(output, c.name, resume, communicator)
        defer { folder.lock?.release() }
        let run = try TrainingRun(
            task, c, folder: folder, allowedChanges: allowedChanges, watching: watching, watcher: watcher,
            communicator: communicator)
        if communicator.isRoot {
            printLine(
                "Training \(task.summary), \(communicator.size) ranks × \(Processor.threads) threads, "
                    + "\(c.train.precisionName), batch \(c.train.batchSize), in \(output)")
        }
        try run.train(resume: resume)
        if communicator.isRoot { printLine("Done: \(task.results(in: folder))") }
    }
}

/// A configuration of a model that can be trained.
package protocol TrainableConfiguration: TrainingConfiguration {
    /// Finds the folder of a model of this kind: in a run, a checkpoint, a pipeline, or a folder of its own.
    static func locateModel(_ path: String) throws -> ModelFolder
    /// Opens the data and creates the model with its initial weights. Collective.
    func makeTask(_ setup: TaskSetup) throws -> any TrainingTask
}

/// The parts of a task's setup that do not depend on the model.
package struct TaskSetup {
    /// The run's folder, which may not exist yet.
    let folder: RunFolder
    let resume: Resume
    let communicator: Communicator
    let activity: RankActivity

    /// Opens the training data, which must be the same on all ranks. Collective.
    func openData(_ options: DataOptions, firstStage: FirstStage?) throws -> any TrainingDataset {
        activity.enter(.openData)
        let dataset = try openTrainingDataset(options, firstStage: firstStage, on: communicator)
        try StartAgreement.compareData(dataset.fingerprint, firstStage: firstStage?.weightsHash, communicator)
        activity.enter(.makeModel)
        return dataset
    }

    /// Sets the initial weights of a model, which are then the same on all ranks. Collective.
    ///
    /// - Parameter source: the weights of another model; nil for random weights.
    /// - Returns: the folder that the weights were read from, if any.
    func initialize(_ store: ParameterStore, seed: UInt64, from source: InitialWeights?) throws -> String? {
        try communicator.collectively("making the model") { try store.checkMemory() }
        store.initialize(seed: seed)
        activity.enter(.initialize)
        let path = try source?.load(into: store, run: folder, resume, communicator)
        try agreeOnInitialWeights(store, communicator)
        return path
    }
}
