import LDMModel
import TensorCore
import Testing
import TestSupport

private let autoencoders = FixtureCase.all(.autoencoderKL, .vqModel)

@Suite struct FixtureAutoencoderTests {
    /// The result of encoding and its golden value, [B, h, w, c]; the golden latent is then decoded.
    private struct Passes {
        let encoded: EncodedImages
        let latent: [Float]
        let latentShape: [Int]
        let decoded: [Float]
        let reconstruction: [Float]

        init(_ stage: FirstStage, _ fixture: FixtureCase) throws {
            let (image, shape) = try fixture.tensor(["image"]).nhwc()
            let names = ["latent_mean", "latent"]
            (latent, latentShape) = try fixture.tensor(
                fixture.kind == .vqModel ? names.reversed() : names
            ).nhwc()
            reconstruction = try fixture.tensor(["reconstruction"]).nhwc().values
            encoded = try image.withUnsafeBufferPointer {
                try stage.encode($0, batch: shape[0], height: shape[1], width: shape[2])
            }
            decoded = latent.withUnsafeBufferPointer { [latentShape] in
                stage.decode($0, batch: latentShape[0], height: latentShape[1], width: latentShape[2])
            }
        }
    }

    @Test("fp32 agrees with diffusers, in one pass and in several", arguments: autoencoders, backends)
    func golden(fixture: FixtureCase, backend: Backend) throws {
        for pixelsPerPass in [1 << 17, 1] {
            let stage = FirstStage(
                try fixture.model("vae", "vqvae").loadAutoencoder(), backend: backend,
                pixelsPerPass: pixelsPerPass)
            let passes = try Passes(stage, fixture)
            #expect(passes.encoded.shape == passes.latentShape)
            #expect(relativeNorm(passes.encoded.mean, passes.latent) < 1e-5)
            #expect((passes.encoded.logVariance == nil) == (fixture.kind == .vqModel))
            if let logVariance = passes.encoded.logVariance {
                let expected = try fixture.tensor(["latent_logvar"]).nhwc().values
                #expect(relativeNorm(logVariance, expected) < 1e-5)
            }
            #expect(relativeNorm(passes.decoded, passes.reconstruction) < 1e-5)
        }
    }

    @Test("bf16 is close to diffusers", arguments: autoencoders, backends)
    func bfloat16(fixture: FixtureCase, backend: Backend) throws {
        let stage = try FirstStage(
            folder: fixture.model("vae", "vqvae"), dtype: .bfloat16, backend: backend)
        let passes = try Passes(stage, fixture)
        #expect(relativeNorm(passes.encoded.mean, passes.latent) < 2e-2)
        #expect(relativeNorm(passes.decoded, passes.reconstruction) < 2e-2)
    }

    /// Some cases contain gradients of sum(moments·grad_moments) + sum(reconstruction·grad_reconstruction).
    @Test(
        "gradients agree with diffusers",
        arguments: FixtureCase.all(.autoencoderKL).filter { $0.contains("grad_moments") }, backends)
    func gradients(fixture: FixtureCase, backend: Backend) throws {
        guard case .autoencoderKL(let model) = try fixture.model("vae").loadAutoencoder() else {
            Issue.record("\(fixture) is no AutoencoderKL")
            return
        }
        let (image, imageShape) = try fixture.tensor(["image"]).nhwc()
        let (mean, latentShape) = try fixture.tensor(["latent_mean"]).nhwc()
        let (gradMoments, momentsShape) = try fixture.tensor(["grad_moments"]).nhwc()
        let (gradImage, gradShape) = try fixture.tensor(["grad_reconstruction"]).nhwc()
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
        let wrong = try wrongGradients(model.store, fixture, tolerance: 1e-4)
        #expect(wrong == [])
    }
}
