import FileFormats
import Foundation
import LDMModel
import TensorCore
import Testing
import TestSupport

/// Compares FID's Inception network, with reduced channel counts, to pytorch-fid:
/// Fixtures/inception/make_inception.py.
@Suite struct InceptionTests {
    private static let folder = fixturePath("inception")

    private func loaded() throws -> InceptionV3 {
        let network = InceptionV3(narrowing: 16)
        try network.load("\(Self.folder)/network.safetensors")
        return network
    }

    @Test(arguments: ["small", "large"], [Backend.fastest, .oneDNN, .openBLAS])
    func features(_ name: String, _ backend: Backend) throws {
        guard backend.isAvailable else { return }
        let file = try SafetensorsFile(path: "\(Self.folder)/features.safetensors")
        let shape = try file.info(of: "\(name).images").shape
        let (B, H, W) = (shape[0], shape[2], shape[3])
        let pixels = try file.integers(of: "\(name).images").map { Float($0) / 255 }
        let extract = InceptionFeatures(try loaded(), backend: backend)
        let found = extract(
            Layout.nhwc(pixels, batch: B, height: H, width: W, channels: 3), count: B, height: H, width: W)
        let expected = try file.floats(of: "\(name).features")
        #expect(found.count == B * 128 && found.count == expected.count)
        for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 1e-4 * max(1, abs(b))) }
    }

    /// An image's features do not depend on its batch: 16 images and a remainder, or a single one.
    @Test func batches() throws {
        let extract = InceptionFeatures(try loaded())
        let size = 8 * 8 * 3
        var random = CounterRandom(seed: 1, purpose: .test)
        let images = (0..<18 * size).map { _ in random.uniform(0, 1) }
        let all = extract(images, count: 18, height: 8, width: 8)
        let last = extract(Array(images.suffix(size)), count: 1, height: 8, width: 8)
        for (a, b) in zip(all.suffix(128), last) { #expect(abs(a - b) <= 1e-5) }
    }

    @Test func otherWeightsAreRefused() throws {
        let wide = InceptionV3(narrowing: 8)
        #expect {
            try wide.load("\(Self.folder)/network.safetensors")
        } throws: { error in
            let line = "\(error)"
            return line.contains("misshapen") && line.contains("docs/evaluation.md") && !line.contains("\n")
        }
        #expect(throws: ModelFolderError.self) {
            try InceptionV3(narrowing: 16).load("\(Self.folder)/features.safetensors")
        }
    }
}
