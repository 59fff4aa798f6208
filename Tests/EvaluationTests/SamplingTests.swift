import Communication
import Evaluation
import FileFormats
import Foundation
import LDMModel
import TensorCore
import Testing
import TestSupport

/// A U-Net with a few hundred randomly initialized parameters.
private func generator() throws -> SampleGenerator {
    let unet = try UNet2DModel(tinyUNetConfig())
    unet.store.initialize(seed: 5)
    return SampleGenerator(Denoiser(unet), scheduler: SchedulerConfig(), height: 8, width: 8)
}

@Suite struct SamplingTests {
    @Test func slerpFollowsTheSphere() {
        var random = CounterRandom(seed: 1, purpose: .test)
        let a = (0..<1000).map { _ in random.normal() }
        let b = (0..<1000).map { _ in random.normal() }
        func norm(_ x: [Float]) -> Double { x.map { Double($0) * Double($0) }.reduce(0, +).squareRoot() }
        #expect(slerp(a, b, 0) == a && slerp(a, b, 1) == b)
        for t in [0.1, 0.25, 0.5, 0.9] {
            // Linear interpolation would give 0.7 of the norm in the middle.
            #expect(abs(norm(slerp(a, b, t)) / norm(a) - 1) < 0.05)
            for (x, y) in zip(slerp(a, b, t), slerp(b, a, 1 - t)) { #expect(abs(x - y) < 1e-5) }
        }
        // A quarter circle, computed by hand: cos 30° and sin 30°.
        let third = slerp([1, 0], [0, 1], 1.0 / 3)
        #expect(abs(third[0] - 0.8660254) < 1e-6 && abs(third[1] - 0.5) < 1e-6)
        // Parallel and opposite vectors cause no division by zero.
        #expect(slerp([1, 2], [2, 4], 0.5) == [1.5, 3])
        #expect(slerp([1, 0], [-1, 0], 0.5).allSatisfy { $0.isFinite })
        #expect(slerp([0, 0], [0, 0], 0.5) == [0, 0])
    }

    @Test func aSeedsPictureIsTheFirstOfItsSeed() throws {
        let generator = try generator()
        let seeds: [UInt64] = [7, 3, 9]
        for eta in [0.0, 1.0] {
            let together = try generator.generate(
                0..<3, SamplingSettings(steps: 4, eta: eta, seeds: seeds, batchSize: 2))
            for (index, seed) in seeds.enumerated() {
                let alone = try generator.generate(0..<1, SamplingSettings(steps: 4, eta: eta, seed: seed))
                let size = generator.sampleSize
                #expect(Array(together[index * size..<(index + 1) * size]) == alone, "seed \(seed)")
            }
        }
    }

    /// Samplers keep what they need of previous steps for each batch, and draw noise for each sample.
    @Test(arguments: SamplerKind.allCases)
    func samplesDoNotDependOnTheBatch(kind: SamplerKind) throws {
        let generator = try generator()
        func settings(_ batch: Int) -> SamplingSettings {
            SamplingSettings(method: kind, steps: 5, spacing: .trailing, seed: 3, batchSize: batch)
        }
        let together = try generator.generate(0..<3, settings(3))
        #expect(try generator.generate(0..<3, settings(2)) == together)
        let size = generator.sampleSize
        #expect(try generator.generate(2..<3, settings(1)) == Array(together[(2 * size)...]))
        #expect(together.allSatisfy { $0.isFinite })
        #expect(try generator.evaluations(settings(1)) == (kind == .heun ? 9 : 5))
    }

    @Test func imagesChangeWithTheStrength() throws {
        let generator = try generator()
        let size = generator.sampleSize
        let images = (0..<2 * size).map { Float(($0 * 37) % 100) / 60 - 0.8 }
        for kind in SamplerKind.allCases {
            var distances: [Float] = []
            for strength in [0.1, 0.5, 1] {
                let settings = SamplingSettings(method: kind, steps: 10, seed: 3)
                let edit = EditSettings(strength: strength)
                var evaluations = 0
                let result = try generator.generate(
                    0..<2, settings, given: GivenSamples(values: images, settings: edit),
                    progress: { evaluations += $0 })
                #expect(try evaluations == 2 * generator.evaluations(settings, edit, hasMask: false))
                distances.append(zip(result, images).map { abs($0 - $1) }.reduce(0, +))
                // Sample 1 is the same without sample 0.
                let alone = try generator.generate(
                    1..<2, settings, given: GivenSamples(values: Array(images[size...]), settings: edit))
                #expect(alone == Array(result[size...]))
            }
            // At full strength, a model without training changes images by any amount.
            #expect(distances[0] < min(distances[1], distances[2]), "\(kind) \(distances)")
        }
        #expect(throws: (any Error).self) {
            try generator.evaluations(
                SamplingSettings(steps: 10), EditSettings(strength: 0.05), hasMask: false)
        }
    }

    @Test func inpaintingRetainsWhatIsNotMasked() throws {
        let generator = try generator()
        let (size, channels) = (generator.sampleSize, 3)
        let images = (0..<2 * size).map { Float(($0 * 37) % 100) / 60 - 0.8 }
        let mask = (0..<64).map { $0 % 8 < 3 }
        let settings = SamplingSettings(steps: 8, seed: 3, batchSize: 1)
        for strength in [nil, 0.5] {
            let edit = EditSettings(strength: strength, jumpLength: 2, resampling: 3)
            var evaluations = 0
            let given = GivenSamples(values: images, mask: mask, settings: edit)
            let result = try generator.generate(
                0..<2, settings, given: given, progress: { evaluations += $0 })
            #expect(try evaluations == 2 * generator.evaluations(settings, edit, hasMask: true))
            for i in result.indices {
                let isRepainted = mask[i % size / channels]
                #expect(result[i].isFinite && (result[i] == images[i]) != isRepainted)
            }
            var together = settings
            together.batchSize = 2
            #expect(try generator.generate(0..<2, together, given: given) == result)
        }
    }

    @Test func momentsAreShownInOrderAndEndWithTheSample() throws {
        let generator = try generator()
        let settings = SamplingSettings(steps: 5, seed: 2, batchSize: 2)
        var shown: [(index: Int, samples: Range<Int>)] = []
        var last: [Float] = []
        let result = try generator.generate(
            0..<3, settings,
            observe: { moment in
                shown.append((moment.index, moment.samples))
                #expect(moment.noisy.count == moment.clean.count)
                // The scheduler clips, and the last step of deterministic DDIM returns the estimate of x₀.
                #expect(moment.clean.allSatisfy { abs($0) <= 1 })
                if moment.index == 4 { last += moment.clean }
            })
        #expect(shown.map(\.index) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
        #expect(shown.map(\.samples) == Array(repeating: 0..<2, count: 5) + Array(repeating: 2..<3, count: 5))
        for (a, b) in zip(last, result) { #expect(abs(a - b) < 1e-6) }
        #expect(try generator.generate(0..<3, settings) == result)
    }

    @Test func interpolationsBeginAndEndWithTheirSeeds() throws {
        let generator = try generator()
        let pictures = SamplePictures(generator, firstStage: nil, communicator: Communicator())
        let settings = SamplingSettings(steps: 3)
        let images = try #require(try pictures.interpolation([(4, 6), (6, 1)], frames: 3, settings))
        #expect(images.count == 6)
        let ends = try generator.generate(0..<3, SamplingSettings(steps: 3, seeds: [4, 6, 1]))
        let expected = try pictures.decode(ends, count: 3)
        #expect(images[0] == expected[0] && images[2] == expected[1])
        #expect(images[3] == expected[1] && images[5] == expected[2])
        #expect(images[1] != images[0] && images[1] != images[2])
        // Two rows per sample, and a column for the final sample.
        let strip = try #require(try pictures.denoisingStrip(2, moments: 2, settings))
        #expect(strip.width == 3 * 10 + 2 && strip.height == 4 * 10 + 2)
        let sample = try pictures.decode(try generator.generate(0..<2, settings), count: 2)
        for row in 0..<4 {
            #expect(strip.cropped(x: 2 + 2 * 10, y: 2 + row * 10, width: 8, height: 8) == sample[row / 2])
        }
    }

    @Test(arguments: [1, 3])
    func anArchiveIsAsNumPyReadsIt(channels: Int) throws {
        let images = (0..<3).map {
            patternImage(width: 6, height: 5, seed: $0).converted(toChannels: channels)
        }
        let path = NSTemporaryDirectory() + "samples-\(UUID().uuidString).npz"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try NPZFile.write(images, to: path)
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let zip = try ZipFile(size: bytes.count) { Array(bytes[$0..<$0 + $1]) }
        let member = try #require(zip.members.first)
        #expect(zip.members.count == 1 && member.name == "arr_0.npy" && member.isFile)
        let array = try zip.content(of: member)
        #expect(array.starts(with: [0x93] + Array("NUMPY".utf8) + [1, 0]))
        let length = Int(array[8]) + 256 * Int(array[9])
        #expect((10 + length) % 64 == 0)
        let head = String(decoding: array[10..<10 + length], as: UTF8.self)
        #expect(head.hasPrefix("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 5, 6, \(channels)), }"))
        #expect(head.hasSuffix("\n"))
        #expect(Array(array[(10 + length)...]) == images.flatMap(\.pixels))
    }
}
