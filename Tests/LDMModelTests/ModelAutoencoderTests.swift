import LDMModel
import Testing
import TestSupport

@Suite struct ModelAutoencoderTests {
    /// Decoding quantizes to the nearest code, so a small change of the latent has no effect.
    @Test func quantizedLatentsSnap() throws {
        let fixture = try FixtureCase.committed("vq")
        let stage = try FirstStage(folder: fixture.model())
        #expect(stage.latentChannels == 2)
        let (latent, shape) = try fixture.tensor(["latent"]).nhwc()
        let moved = latent.map { $0 + 1e-5 }
        let image = moved.withUnsafeBufferPointer {
            stage.decode($0, batch: shape[0], height: shape[1], width: shape[2])
        }
        #expect(relativeNorm(image, try fixture.tensor(["reconstruction"]).nhwc().values) < 1e-5)
    }

    @Test func sidesThatDoNotDivideAreRefused() throws {
        let stage = try FirstStage(folder: FixtureCase.committed("kl_f8_plain").model())
        #expect(stage.downsamplingFactor == 8)
        #expect(stage.scalingFactor == 0.5)
        let image = [Float](repeating: 0, count: 3 * 16 * 12)
        let error = #expect(throws: FirstStageError.self) {
            try image.withUnsafeBufferPointer { try stage.encode($0, batch: 1, height: 16, width: 12) }
        }
        #expect(error?.description.contains("multiples of 8, not 16×12") == true)
    }
}
