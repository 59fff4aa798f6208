import Records

extension TrainingProgress {
    func update(_ entry: Trainer.LogEntry) -> JobStatus.Progress {
        update(
            step: entry.step, loss: entry.loss, learningRate: entry.learningRate,
            imagesPerSecond: entry.imagesPerSecond, stepSeconds: entry.stepSeconds)
    }
}
