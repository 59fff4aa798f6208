import Checkpointing
import Support

/// The outcome of one training step. All values but the times are the same on every rank.
package struct StepResult: Sendable {
    /// Mean over the global batch.
    package var loss: Double
    /// The named terms of the loss, if it has several.
    package var parts: [LossPart]
    /// Norm of the global gradient, before clipping.
    package var gradientNorm: Double
    package var learningRate: Float
    /// Norm of the global gradient of each block, before clipping; empty unless requested.
    package var blockNorms: [(name: String, value: Double)]
    package var votes: StepVotes
    package var times: StepTimes
}

/// A term of a loss.
package typealias LossPart = (name: String, value: Double)

/// Flags of a rank that are piggybacked on a step's all-reduce. In a result, the numbers of ranks that set them.
package struct StepVotes: Sendable, Equatable {
    /// Ranks whose thread is still writing a checkpoint.
    package var saving: Double
    /// Ranks that request the training to stop.
    package var stopping: Double

    package init(saving: Double = 0, stopping: Double = 0) {
        self.saving = saving
        self.stopping = stopping
    }
}

/// The time of a step on this rank by phase, in seconds.
package struct StepTimes: Sendable {
    package var total = 0.0
    package var data = 0.0
    /// Everything except reading data and waiting for other ranks.
    package var compute = 0.0
    /// Waiting for weights and gradients that did not overlap with computation.
    package var communication = 0.0
    /// The part of `communication` that was spent on weights.
    package var gather = 0.0
    /// All time inside MPI for weights and gradients, waiting included.
    package var messages = 0.0
    /// Gradient norm, agreement, AdamW and averages, and on one machine the all-gather of weights; part of `compute`.
    package var optimizer = 0.0
}

/// Training stopped because of a numerical fault. The step that detected it has not changed any parameter.
package struct NumericalFault: ReportableError {
    package let step: Int
    package let loss: Double
    package let gradientNorm: Double
    package var exitStatus: Int32 { ExitStatus.numericalFault }
    package var message: String {
        "step \(step): loss is \(loss), gradient norm is \(gradientNorm): expected finite numbers; the weights are "
            + "unchanged since step \(step); resume from the last checkpoint with a lower "
            + "optimizer.learning_rate or clip_norm, or train.precision: fp32"
    }
}

extension RunningSums {
    mutating func add(_ result: StepResult) {
        logged.add(result)
        saved.steps += 1
        saved.loss += result.loss
    }
}

extension RunningSums.Logged {
    mutating func add(_ result: StepResult) {
        steps += 1
        loss += result.loss
        gradientNorm += result.gradientNorm
        if parts.isEmpty {
            parts = result.parts
        } else {
            for index in parts.indices { parts[index].value += result.parts[index].value }
        }
    }
}
