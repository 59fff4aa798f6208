import Evaluation
import FileFormats
import Imaging
import LDMModel
import Testing
import TestSupport

/// A class-conditional U-Net with random weights.
///
/// - Parameter names: names of the classes, one fewer than the embeddings.
private func conditionalUNet(_ names: [String] = ["cat", "dog", "frog"]) throws -> UNet2DModel {
    var config = tinyUNetConfig()
    config.numClassEmbeds = 4
    config.labelNames = names
    let unet = try UNet2DModel(config)
    unet.store.initialize(seed: 5)
    return unet
}

@Suite struct GuidanceTests {
    @Test func combinesConditionalAndUnconditionalPredictions() throws {
        let denoiser = Denoiser(try conditionalUNet())
        let sample: [Float] = (0..<384).map { index in Float(index % 17) / 17 - 0.5 }
        func predict(_ classes: [Int]) -> [Float] {
            denoiser.predict(sample, height: 8, width: 8, timesteps: [500, 20], classes: classes)
        }
        func predict(_ condition: ClassCondition) -> [Float] {
            var output = [Float](repeating: 0, count: sample.count)
            sample.withUnsafeBufferPointer { sample in
                output.withUnsafeMutableBufferPointer {
                    denoiser.predict(
                        sample, height: 8, width: 8, timesteps: [500, 20], condition: condition, into: $0)
                }
            }
            return output
        }
        let (conditional, unconditional) = (predict([0, 2]), predict([3, 3]))
        #expect(relativeNorm(conditional, unconditional) > 1e-2, "the class changes nothing")
        #expect(predict(ClassCondition(classes: [0, 2])) == conditional)
        let guided = predict(ClassCondition(classes: [0, 2], guidanceScale: 2.5, nullClass: 3))
        let expected = zip(conditional, unconditional).map { $1 + 2.5 * ($0 - $1) }
        #expect(relativeNorm(guided, expected) < 1e-5)
    }

    @Test func samplesTakeClassesInTurn() throws {
        let unet = try conditionalUNet()
        let generator = SampleGenerator(
            Denoiser(unet), scheduler: SchedulerConfig(), height: 8, width: 8)
        var settings = SamplingSettings(steps: 3, batchSize: 2)
        let all = try generator.generate(0..<4, settings)
        settings.classes = ClassRequest(names: ["dog"])
        let dogs = try generator.generate(0..<4, settings)
        let size = generator.sampleSize
        // Sample 1 is a dog in both; sample 3 is a cat in the first.
        #expect(Array(all[size..<2 * size]) == Array(dogs[size..<2 * size]))
        #expect(Array(all[3 * size..<4 * size]) != Array(dogs[3 * size..<4 * size]))
        // A range is part of the whole, so ranks may share the work.
        settings.classes = ClassRequest()
        #expect(relativeNorm(try generator.generate(2..<4, settings), Array(all[2 * size..<4 * size])) < 1e-6)
    }

    @Test func requestsAreValidated() throws {
        let config = try conditionalUNet().config
        let some = try #require(try config.select(ClassRequest(names: ["frog", "0"])))
        #expect(some.classes == [2, 0] && some.names == ["frog", "cat"])
        #expect(try config.select(ClassRequest())?.classes == [0, 1, 2])
        func message(_ config: UNet2DConfig, _ request: ClassRequest) -> String {
            do throws(ConfigError) {
                _ = try config.select(request)
                return ""
            } catch { return error.description }
        }
        #expect(message(config, ClassRequest(names: ["dgo"])).contains("did you mean 'dog'?"))
        #expect(message(config, ClassRequest(names: ["3"])).contains("no class '3'"))
        let unnamed = try conditionalUNet([]).config
        #expect(message(unnamed, ClassRequest(guidanceScale: 2)).contains("specify --null-class"))
        #expect(try unnamed.select(ClassRequest(guidanceScale: 2, nullClass: 3))?.classes.count == 4)
        #expect(message(unnamed, ClassRequest(guidanceScale: 2, nullClass: 4)).contains("0..<4"))
        let full = try conditionalUNet(["a", "b", "c", "d"]).config
        #expect(message(full, ClassRequest(guidanceScale: 2)).contains("no null class"))
        #expect(message(UNet2DConfig(), ClassRequest(guidanceScale: 2)).contains("unconditional"))
        #expect(message(UNet2DConfig(), ClassRequest(names: ["cat"])).contains("unconditional"))
    }

    @Test func gridsHaveARowForEachClass() throws {
        let selection = try conditionalUNet().config.select(ClassRequest())
        // Sample i has the gray level i.
        let images = (0..<7).map { Image(width: 8, height: 8, red: UInt8($0), green: 0, blue: 0) }
        let grid = ImageGrid.render(samples: images, selection)
        func level(row: Int, column: Int) -> UInt8 {
            grid.pixels[3 * ((2 + row * 10) * grid.width + 2 + column * 10)]
        }
        #expect((0..<3).map { level(row: 0, column: $0) } == [0, 3, 6])
        #expect((0..<3).map { level(row: 1, column: $0) } == [1, 4, 255])
        #expect((0..<3).map { level(row: 2, column: $0) } == [2, 5, 255])
        let gray = ImageGrid.render(samples: images.map { $0.converted(toChannels: 1) }, selection)
        #expect(gray.channels == 1 && gray.width == grid.width && gray.height == grid.height)
    }
}
