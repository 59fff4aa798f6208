import Communication
import DistTrain
import Foundation
import LDMModel
import Planning
import Support
import TensorCore
import Testing
import TestSupport

/// The configurations that ship with the program.
private let folder = repositoryPath("configs")

/// Two levels, one of them with attention; a step takes milliseconds.
private func tinyUNet() throws -> UNet2DConfig {
    var config = UNet2DConfig()
    config.sampleSize = SpatialSize(8)
    config.blockOutChannels = [8, 16]
    config.layersPerBlock = 1
    config.downBlockTypes = [.plain, .attention]
    config.upBlockTypes = [.attention, .plain]
    config.attentionHeadDim = 8
    config.normNumGroups = 4
    return config
}

private func trainingTape(_ config: UNet2DConfig, batch: Int) throws -> Tape {
    let size = try #require(config.sampleSize)
    let objective = DenoisingObjective(
        unet: try UNet2DModel(config),
        dataset: NormalDataset(height: size.height, width: size.width, channels: config.inChannels),
        schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil, flips: false)
    let tape = Tape(backend: .openBLAS, recordsGradients: true)
    _ = objective.record(on: tape, batch: batch, globalBatch: batch)
    return tape
}

/// Multiply-adds of a U-Net on one image, from its layers as diffusers' source lists them.
private struct LayerCount {
    private(set) var forward = 0
    /// Multiply-adds of the layers whose input does not depend on a parameter: no gradient flows through them.
    private(set) var withoutBackwardData = 0

    init(_ config: UNet2DConfig) {
        let channels = config.blockOutChannels
        let embedding = 4 * channels[0]
        var size = config.sampleSize!.height

        func convolution(_ i: Int, _ o: Int) -> Int { 9 * i * o * size * size }
        func resnet(_ i: Int, _ o: Int) -> Int {
            let shortcut = i == o ? 0 : i * o * size * size
            return convolution(i, o) + embedding * o + convolution(o, o) + shortcut
        }
        func attention(_ c: Int) -> Int {
            let tokens = size * size
            return 4 * c * c * tokens + 2 * tokens * tokens * c
        }

        // conv_in, and the timestep's linear layers.
        withoutBackwardData = convolution(config.inChannels, channels[0]) + channels[0] * embedding
        forward = withoutBackwardData + embedding * embedding
        var skips = [channels[0]]
        var current = channels[0]
        for (level, width) in channels.enumerated() {
            for _ in 0..<config.layersPerBlock {
                forward += resnet(current, width)
                if config.downBlockTypes[level] == .attention { forward += attention(width) }
                current = width
                skips.append(width)
            }
            if level < channels.count - 1 {
                size /= 2
                forward += convolution(width, width)
                skips.append(width)
            }
        }
        forward += 2 * resnet(current, current) + attention(current)
        for (level, width) in channels.reversed().enumerated() {
            for _ in 0...config.layersPerBlock {
                forward += resnet(current + skips.removeLast(), width)
                if config.upBlockTypes[level] == .attention { forward += attention(width) }
                current = width
            }
            if level < channels.count - 1 {
                size *= 2
                forward += convolution(width, width)
            }
        }
        forward += convolution(channels[0], config.outChannels)
    }

    /// Two operations per multiply-add; the backward pass needs as many again for the weights, and for the input.
    var trainingFlops: Int { 2 * (3 * forward - withoutBackwardData) }
}

@Suite struct BenchmarkFlopTests {
    /// 41,689,415,680 is also what torch.utils.flop_counter counts for diffusers' model and its backward pass.
    @Test func theBenchmarkModelsTrainingStep() throws {
        let config = try UNet2DConfig(contentsOf: folder + "/unet_70m.json")
        let tape = try trainingTape(config, batch: 1)
        #expect(tape.flops == LayerCount(config).trainingFlops)
        #expect(tape.flops == 41_689_415_680)
    }

    @Test func operationsGrowWithTheBatch() throws {
        let config = try tinyUNet()
        #expect(try trainingTape(config, batch: 1).flops == LayerCount(config).trainingFlops)
        #expect(try trainingTape(config, batch: 3).flops == 3 * LayerCount(config).trainingFlops)
    }

    /// As torch.utils.flop_counter counts diffusers' AutoencoderKL.
    @Test func stableDiffusionsAutoencoder() throws {
        let model = try AutoencoderKL(AutoencoderKLConfig(contentsOf: folder + "/sd_vae_ft_mse.json"))
        #expect(model.store.parameterCount == 83_653_863)
        let encoder = Tape(backend: .openBLAS, recordsGradients: false)
        _ = model.encode(encoder, encoder.input([1, 256, 256, 3]))
        #expect(encoder.flops == 272_722_165_760)
        let decoder = Tape(backend: .openBLAS, recordsGradients: false)
        _ = model.decode(decoder, decoder.input([1, 32, 32, 4]))
        #expect(decoder.flops == 622_187_282_432)
    }
}

@Suite struct BenchmarkRunTests {
    @Test func evaluationsAreReported() throws {
        let config = try tinyUNet()
        var report = try SampleBenchmark(
            unet: config, dtype: .float32, backend: .fastest, batch: 2, evaluations: 3
        ).run(Communicator())
        #expect(report.seconds.count == 3 && report.ceilings != nil)
        // The operations of one call, regardless of the number of calls.
        #expect(report.flops == Double(2 * 2 * LayerCount(config).forward))
        #expect(report.entries.contains { $0.name == Work.convolutionForward.rawValue && $0.flops > 0 })
        #expect(!report.entries.contains { $0.name == Work.convolutionBackwardData.rawValue })

        // The median of an even number is the mean of the two in the middle.
        report.seconds = [4, 1, 100, 2]
        #expect(report.medianSeconds == 3 && report.imagesPerSecond == 2.0 / 3)
        report.seconds = [4, 1, 100]
        #expect(report.medianSeconds == 4)

        let json = try JSONValue(parsing: Array(report.json.utf8)[...])
        #expect(json["seconds_per_evaluation"]?.doubleValue == 4)
        #expect(json["images_per_second"]?.doubleValue == 0.5)
    }

    @Test func aFirstStageIsReportedBothWays() throws {
        var config = AutoencoderKLConfig()
        config.blockOutChannels = [8, 16]
        config.downBlockTypes = [.plain, .plain]
        config.upBlockTypes = [.plain, .plain]
        config.normNumGroups = 4
        let reports = try VAEBenchmark(
            vae: config, size: SpatialSize(16), dtype: .float32, backend: .fastest, batch: 3, passes: 2
        ).run(Communicator())
        #expect(reports.map(\.call) == ["encode", "decode"])
        let model = try AutoencoderKL(config)
        let encoder = Tape(backend: .openBLAS, recordsGradients: false)
        _ = model.encode(encoder, encoder.input([1, 16, 16, 3]))
        #expect(reports[0].flops == Double(3 * encoder.flops))
        #expect(reports[1].flops > reports[0].flops)
    }

    /// "Trace Event Format", complete events.
    @Test func theTraceIsValid() throws {
        let path = FileManager.default.temporaryDirectory.path + "/trace-\(UUID().uuidString).json"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let report = try StepBenchmark(
            unet: try tinyUNet(), dtype: .float32, backend: .fastest, batch: 2, steps: 2, tracePath: path
        ).run(Communicator())

        let data = try #require(FileManager.default.contents(atPath: path))
        let root = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let events = try #require(root["traceEvents"] as? [[String: Any]])
        let spans = events.filter { $0["ph"] as? String == "X" }
        #expect(events.count == spans.count + 1)
        #expect(events.first?["ph"] as? String == "M" && events.first?["name"] as? String == "process_name")
        for span in spans {
            #expect(span["name"] is String && span["cat"] is String)
            #expect(span["pid"] as? Int == 0 && span["tid"] as? Int == 0)
            #expect(try #require(span["ts"] as? Double) >= 0 && #require(span["dur"] as? Double) >= 0)
        }
        // Two steps; the sum does not exceed the measured time.
        #expect(spans.filter { $0["cat"] as? String == "optimizer" }.count == 2)
        let traced = spans.reduce(0) { $0 + ($1["dur"] as? Double ?? 0) }
        #expect(traced > 0 && traced <= 1e6 * report.seconds.reduce(0, +))
    }

    @Test func everyConvolutionIsTimedOnce() throws {
        let unet = ModelConfig.unet(try tinyUNet())
        let benchmark = try KernelBenchmark(models: [unet, unet], dtype: .float32, batch: 2)
        let recorded = try trainingTape(try tinyUNet(), batch: 2).convolutions
        #expect(benchmark.count == Set(recorded).count)
        var shares: [Double] = []
        let results = try benchmark.run(Communicator()) { shares.append($1) }
        #expect(shares.count == benchmark.count && shares == shares.sorted())
        #expect(abs((shares.last ?? 0) - 1) < 1e-9)
        #expect(results.reduce(0) { $0 + $1.count } == recorded.count)
        for result in results {
            #expect(Set(result.timings.map(\.backend)).count == result.timings.count)
            #expect(result.timings.contains { $0.backend == .openBLAS })
            #expect(result.pick.implementation == result.convolution.implementation(.fastest))
            #expect(result.best.seconds <= result.pick.seconds && result.best.seconds > 0)
        }
    }
}
