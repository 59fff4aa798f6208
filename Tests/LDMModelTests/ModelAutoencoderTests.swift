import LDMModel
import TensorCore
import Testing

@Suite struct ModelAutoencoderTests {
    private func encode(
        _ stage: FirstStage, _ fixture: ModelFixture
    ) throws -> (EncodedImages, expected: [Float], shape: [Int]) {
        let (image, shape) = try fixture.nhwc("image")
        let encoded = try image.withUnsafeBufferPointer {
            try stage.encode($0, batch: shape[0], height: shape[1], width: shape[2])
        }
        let name = fixture.tensors.contains("latent") ? "latent" : "latent_mean"
        let (expected, latentShape) = try fixture.nhwc(name)
        return (encoded, expected, latentShape)
    }

    private func decode(_ stage: FirstStage, _ latent: [Float], _ shape: [Int]) -> [Float] {
        latent.withUnsafeBufferPointer {
            stage.decode($0, batch: shape[0], height: shape[1], width: shape[2])
        }
    }

    @Test("fp32 agrees with diffusers, in one pass and in several", arguments: backends, [1 << 17, 1])
    func golden(backend: Backend, pixelsPerPass: Int) throws {
        for name in ModelFixture.names("autoencoder_kl") {
            let fixture = try ModelFixture(name)
            let stage = FirstStage(
                try fixture.folder.loadAutoencoder(), backend: backend, pixelsPerPass: pixelsPerPass)
            let (encoded, mean, shape) = try encode(stage, fixture)
            #expect(encoded.shape == shape, "\(name)")
            #expect(relativeError(encoded.mean, mean) < 1e-5, "\(name)")
            let logVariance = try #require(encoded.logVariance)
            #expect(relativeError(logVariance, try fixture.nhwc("latent_logvar").values) < 1e-5, "\(name)")
            let image = decode(stage, mean, shape)
            #expect(relativeError(image, try fixture.nhwc("reconstruction").values) < 1e-5, "\(name)")
        }
    }

    @Test("bf16 is near diffusers", arguments: backends)
    func bfloat16(backend: Backend) throws {
        for name in ModelFixture.names("autoencoder_kl") {
            let fixture = try ModelFixture(name)
            let stage = try FirstStage(folder: fixture.folder, dtype: .bfloat16, backend: backend)
            let (encoded, mean, shape) = try encode(stage, fixture)
            #expect(relativeError(encoded.mean, mean) < 5e-2, "\(name)")
            let image = decode(stage, mean, shape)
            #expect(relativeError(image, try fixture.nhwc("reconstruction").values) < 5e-2, "\(name)")
        }
    }

    @Test("gradients agree with diffusers", arguments: ModelFixture.names("autoencoder_kl"), backends)
    func gradients(name: String, backend: Backend) throws {
        let fixture = try ModelFixture(name)
        guard case .autoencoderKL(let model) = try fixture.folder.loadAutoencoder() else {
            Issue.record("\(name) is no AutoencoderKL")
            return
        }
        let (image, imageShape) = try fixture.nhwc("image")
        let (mean, latentShape) = try fixture.nhwc("latent_mean")
        let (gradMoments, momentsShape) = try fixture.nhwc("grad_moments")
        let (gradImage, gradShape) = try fixture.nhwc("grad_reconstruction")
        let tape = Tape(backend: backend, recordsGradients: true)
        let input = tape.input(imageShape)
        let latent = tape.input(latentShape)
        let seeds = (tape.input(momentsShape), tape.input(gradShape))
        let moments = model.encode(tape, input)
        let reconstruction = model.decode(tape, latent)
        tape.backward(from: [(moments, seeds.0), (reconstruction, seeds.1)])
        tape.plan()
        input.write(image)
        latent.write(mean)
        seeds.0.write(gradMoments)
        seeds.1.write(gradImage)
        tape.run(RunContext(batch: imageShape[0]))
        #expect(try wrongGradients(model.store, fixture, tolerance: 1e-4) == [])
    }

    @Test("VQ latents and reconstructions agree with diffusers", arguments: backends)
    func vectorQuantized(backend: Backend) throws {
        let fixture = try ModelFixture("vq")
        let stage = try FirstStage(folder: fixture.folder, backend: backend)
        let (encoded, latent, shape) = try encode(stage, fixture)
        #expect(encoded.logVariance == nil)
        #expect(stage.latentChannels == 2)
        #expect(relativeError(encoded.mean, latent) < 1e-5)
        let expected = try fixture.nhwc("reconstruction").values
        #expect(relativeError(decode(stage, latent, shape), expected) < 1e-5)
        // Decoding takes the nearest code, so a small change of the latent changes nothing.
        let moved = latent.map { $0 + 1e-5 }
        #expect(relativeError(decode(stage, moved, shape), expected) < 1e-5)
    }

    @Test func sidesThatDoNotDivideAreRefused() throws {
        let stage = try FirstStage(folder: ModelFixture("kl_f8_plain").folder)
        #expect(stage.downsamplingFactor == 8)
        #expect(stage.scalingFactor == 0.5)
        let image = [Float](repeating: 0, count: 3 * 16 * 12)
        let error = #expect(throws: FirstStageError.self) {
            try image.withUnsafeBufferPointer { try stage.encode($0, batch: 1, height: 16, width: 12) }
        }
        #expect(error?.description.contains("multiples of 8, not 16×12") == true)
    }
}
