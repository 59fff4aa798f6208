import Communication
import Datasets
import Foundation
import LDMModel
import Testing

func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

func truncate(_ path: String, by count: Int) throws {
    let data = try bytes(path)
    try data.dropLast(count).write(to: URL(fileURLWithPath: path))
}

/// Writes synthetic faces as PNG files `0.png` …, in a folder with the given number of class folders (0:
/// none).
func writeFaces(_ count: Int, to folder: String, size: Int = 24, classes: Int = 0) throws {
    let faces = SyntheticFaces(seed: 1)
    for index in 0..<count {
        var place = folder
        if classes > 0 {
            place += "/class\(index % classes)"
            try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        }
        try faces.draw(index, size: size).write(to: "\(place)/\(String(format: "%03d", index)).png")
    }
}

/// Writes a tiny AutoencoderKL with f = 2 and two latent channels, in diffusers' layout.
///
/// - Parameter channels: those of the images.
func writeAutoencoder(
    to folder: String, seed: UInt64 = 0, scalingFactor: Double = 0.5, channels: Int = 3
) throws {
    var config = AutoencoderKLConfig()
    (config.inChannels, config.outChannels) = (channels, channels)
    config.blockOutChannels = [8, 8]
    config.downBlockTypes = [.plain, .plain]
    config.upBlockTypes = [.plain, .plain]
    config.layersPerBlock = 1
    config.latentChannels = 2
    config.normNumGroups = 4
    config.scalingFactor = scalingFactor
    config.shiftFactor = 0.25
    let model = try AutoencoderKL(config)
    model.store.initialize(seed: seed)
    try ModelFolder(folder).save(config, model.store)
}

/// Writes a tiny VQModel with f = 2 and three latent channels.
func writeVQModel(to folder: String) throws {
    var config = VQModelConfig()
    config.blockOutChannels = [8, 8]
    config.downBlockTypes = [.plain, .plain]
    config.upBlockTypes = [.plain, .plain]
    config.normNumGroups = 4
    config.numVQEmbeddings = 16
    let model = try VQModel(config)
    model.store.initialize(seed: 3)
    try ModelFolder(folder).save(config, model.store)
}

/// Options for tests: 16 pixels, fp32.
func options(_ source: String, _ output: String, firstStage: String? = nil, size: Int = 16) -> PrepareOptions
{
    var options = PrepareOptions(source: source, output: output, size: size)
    options.firstStage = firstStage
    options.precision = .fp32
    return options
}

@discardableResult
func prepareAlone(_ options: PrepareOptions) throws -> PrepareSummary {
    try prepare(options, on: Communicator(), showsProgress: false)
}

/// The message of the `DatasetError` that `body` must throw.
func datasetError(
    _ kind: DatasetError.Kind? = nil, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
) -> String {
    do {
        try body()
        Issue.record("no error was thrown", sourceLocation: sourceLocation)
    } catch let error as DatasetError {
        if let kind { #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation) }
        #expect(!error.message.contains("\n"), sourceLocation: sourceLocation)
        return error.message
    } catch {
        Issue.record("\(error) is no DatasetError", sourceLocation: sourceLocation)
    }
    return ""
}

let firstKey = SampleKey(seed: 0, step: 0, sample: 0)

func hasShape(_ dataset: any TrainingDataset, _ height: Int, _ width: Int, _ channels: Int) -> Bool {
    dataset.height == height && dataset.width == width && dataset.channels == channels
}
