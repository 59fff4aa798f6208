import Checkpointing

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
