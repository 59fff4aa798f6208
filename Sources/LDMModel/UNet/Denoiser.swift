import TensorCore

/// Evaluates a U-Net for sampling: forward passes only, recorded once per shape.
///
/// Samples are fp32 NHWC, regardless of the model's compute type. Each call uses the store's current weights.
package final class Denoiser {
    package let model: UNet2DModel
    private let dtype: DType
    private let backend: Backend
    private let arena: Arena
    private var passes: RecentCache<[Int], Pass>

    private struct Pass {
        let tape: Tape
        let context: RunContext
        let sample: Tensor
        let timestep: Tensor
        let label: Tensor?
        let output: Tensor
    }

    /// - Parameters:
    ///   - arena: memory of the activations; sharing one with other tapes saves memory
    ///   - shapes: number of shapes to keep recorded; each holds its own copy of the packed weights
    package init(
        _ model: UNet2DModel, dtype: DType = .float32, backend: Backend = .fastest, arena: Arena = Arena(),
        shapes: Int = 2
    ) {
        (self.model, self.dtype, self.backend, self.arena) = (model, dtype, backend, arena)
        passes = RecentCache(capacity: max(1, shapes))
    }

    /// Computes the model's output for a batch.
    ///
    /// - Parameters:
    ///   - sample: [B, height, width, in] fp32
    ///   - timesteps: [B]
    ///   - classes: [B], for a class-conditional model only
    ///   - output: [B, height, width, out] fp32; may be the same memory as `sample`
    package func predict(
        _ sample: UnsafeBufferPointer<Float>, height: Int, width: Int, timesteps: [Float],
        classes: [Int]? = nil, into output: UnsafeMutableBufferPointer<Float>
    ) {
        precondition((classes?.count ?? timesteps.count) == timesteps.count, "expected one class a sample")
        let pass = passes.value(for: [timesteps.count, height, width]) {
            record(batch: timesteps.count, height: height, width: width)
        }
        precondition(output.count == pass.output.count, "output of \(output.count) values")
        pass.sample.write(sample)
        pass.timestep.write(timesteps)
        if let classes { pass.label?.write(classes.map(Float.init)) }
        pass.tape.run(pass.context)
        pass.output.readFloats().withUnsafeBufferPointer { _ = output.update(from: $0) }
    }

    /// The model's output [B, height, width, out] for a batch of samples [B, height, width, in].
    package func predict(
        _ sample: [Float], height: Int, width: Int, timesteps: [Float], classes: [Int]? = nil
    ) -> [Float] {
        let count = timesteps.count * height * width * model.config.outChannels
        return [Float](unsafeUninitializedCapacity: count) { output, initialized in
            sample.withUnsafeBufferPointer {
                predict(
                    $0, height: height, width: width, timesteps: timesteps, classes: classes,
                    into: UnsafeMutableBufferPointer(rebasing: output[..<count]))
            }
            initialized = count
        }
    }

    /// The work of the evaluations since the last call, by kind.
    package func takeProfile() -> [WorkProfile] { passes.values.map(\.tape).takeProfile() }

    private func record(batch: Int, height: Int, width: Int) -> Pass {
        let tape = Tape(dtype: dtype, backend: backend, recordsGradients: false, arena: arena)
        let sample = tape.input([batch, height, width, model.config.inChannels])
        let timestep = tape.input([batch], dtype: .float32)
        let label = model.config.isConditional ? tape.input([batch], dtype: .float32) : nil
        let output = model(tape, sample: sample, timestep: timestep, label: label)
        tape.keep(output)
        tape.plan()
        return Pass(
            tape: tape, context: RunContext(batch: batch), sample: sample, timestep: timestep, label: label,
            output: output)
    }
}
