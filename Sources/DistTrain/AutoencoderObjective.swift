import Datasets
import LDMModel
import TensorCore

// B micro-batch, [H, W, C] an image, [h, w, c] its latent.

/// The loss of an AutoencoderKL: l1·mean|x̂ − x| + mse·mean(x̂ − x)² + kl·mean KL(q(z|x) ‖ N(0, 1)) +
/// edge·(mean absolute error of the differences between neighbouring pixels, which sharpens edges at low cost).
package final class AutoencoderObjective: Objective {
    package struct Weights: Sendable {
        package var l1: Float
        package var mse: Float
        package var kl: Float
        package var edge: Float

        package init(l1: Float, mse: Float, kl: Float, edge: Float) {
            (self.l1, self.mse, self.kl, self.edge) = (l1, mse, kl, edge)
        }
    }

    package let store: ParameterStore
    let model: AutoencoderKL
    let dataset: any TrainingDataset
    let weights: Weights
    let flips: Bool

    package init(model: AutoencoderKL, dataset: any TrainingDataset, weights: Weights, flips: Bool) {
        self.flips = flips
        self.model = model
        self.store = model.store
        self.dataset = dataset
        self.weights = weights
    }

    package var sampleCount: Int { dataset.count }

    package func record(on tape: Tape, batch: Int, globalBatch: Int) -> any RecordedObjective {
        let (H, W) = (dataset.height, dataset.width)
        let image = tape.input([batch, H, W, dataset.channels])
        let target = tape.input(image.shape, dtype: .float32)
        let moments = model.encode(tape, image)  // [B, h, w, 2c]
        let latentShape = Array(moments.shape.dropLast()) + [moments.shape[3] / 2]
        let noise = tape.input(latentShape, dtype: .float32)
        let latentCount = latentShape.dropFirst().reduce(1, *)
        let (latent, divergence) = tape.gaussianSample(
            moments, noise: noise, klWeight: weights.kl / Float(globalBatch * latentCount))
        let reconstruction = model.decode(tape, latent)  // [B, H, W, C]

        let recorded = Recorded(
            self, image: image, target: target, noise: noise, divergence: divergence,
            globalBatch: globalBatch,
            latentCount: latentCount)
        var seeds: [(Tensor, Tensor)] = []
        func addError(_ name: String, _ norm: Tape.ErrorNorm, _ weight: Float) {
            guard weight > 0 else { return }
            let loss = recorded.term(name, weight: weight, on: tape) {
                tape.error(norm, reconstruction, target, weight: $0)
            }
            seeds.append((loss.output, loss.gradient))
        }
        addError("l1", .absolute, weights.l1)
        addError("mse", .squared, weights.mse)
        if weights.edge > 0 {
            let loss = recorded.term("edge", weight: weights.edge, on: tape) {
                tape.edgeError(reconstruction, target, weight: $0)
            }
            seeds.append((loss.output, loss.gradient))
        }
        tape.backward(from: seeds)
        return recorded
    }

    private final class Recorded: RecordedObjective {
        let objective: AutoencoderObjective
        let image, target, noise: Tensor
        let divergence: LossSums
        let globalBatch, latentCount: Int
        private var terms: [(name: String, scale: Float, weight: Tensor, sums: LossSums)] = []

        init(
            _ objective: AutoencoderObjective, image: Tensor, target: Tensor, noise: Tensor,
            divergence: LossSums, globalBatch: Int, latentCount: Int
        ) {
            self.objective = objective
            (self.image, self.target, self.noise) = (image, target, noise)
            (self.divergence, self.globalBatch) = (divergence, globalBatch)
            self.latentCount = latentCount
        }

        func term(
            _ name: String, weight: Float, on tape: Tape, _ loss: (Tensor) -> SampleLoss
        ) -> SampleLoss {
            let weights = tape.input([image.shape[0]], dtype: .float32)
            let made = loss(weights)
            let elements = image.count / image.shape[0]
            terms.append((name, weight / Float(globalBatch * elements), weights, made.sums))
            return made
        }

        func load(_ items: [BatchItem]) throws {
            let (pixels, noise) = (target.floats, noise.floats)
            let n = target.count / items.count
            let m = noise.count / items.count
            for (b, item) in items.enumerated() {
                try objective.dataset.read(
                    item.index, flipped: objective.flips && item.key.isFlipped, key: item.key,
                    into: UnsafeMutableBufferPointer(rebasing: pixels[b * n..<(b + 1) * n]))
                var normal = item.key.random(.noise)
                normal.fillNormal(UnsafeMutableBufferPointer(rebasing: noise[b * m..<(b + 1) * m]))
            }
            image.write(UnsafeBufferPointer(pixels))
            for term in terms { term.weight.floats.update(repeating: term.scale) }
        }

        private var klTerm: Double {
            divergence.values.reduce(0, +) / Double(globalBatch * latentCount)
        }

        var loss: Double {
            terms.reduce(Double(objective.weights.kl) * klTerm) {
                $0 + $1.sums.values.reduce(0, +) * Double($1.scale)
            }
        }

        var parts: [(name: String, value: Double)] {
            let elements = Double(globalBatch * (image.count / image.shape[0]))
            return terms.map { ($0.name, $0.sums.values.reduce(0, +) / elements) } + [("kl", klTerm)]
        }
    }
}
