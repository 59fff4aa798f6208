import Foundation
import LDMModel

/// Pictures of a model's sampling that reports show, by their files in the run's `report` folder.
enum ReportPictureKind: String, CaseIterable {
    case denoising, interpolation

    var fileName: String { "\(rawValue).png" }

    func caption(_ say: ReportLanguage) -> String {
        switch self {
        case .denoising:
            return say(
                "from noise to sample: above each x_t, below what the model takes x₀ for",
                "ノイズから標本まで: 上段は x_t、下段はモデルが予測する x₀")
        case .interpolation:
            return say(
                "interpolation between the noise of two samples, one pair a row",
                "2 つの標本のノイズ間の補間 (1 行に 1 組)")
        }
    }
}

extension ReportedRun {
    /// Draws the pictures of the model's sampling into the run's `report` folder: from its newest checkpoint, or its
    /// finished model.
    ///
    /// - Parameter progress: told of denoising steps, one for each sample.
    func drawPictures(progress: @escaping (Int) throws -> Void) throws {
        guard let configuration else { return }
        let path = folder.path
        let model = try SamplingModel(path, weights: nil, firstStage: nil, dtype: configuration.train.dtype)
        let pictures = try model.visiblePictures(SingleProcess())
        var settings = configuration.samplingSettings
        // Noise on the way would hide what the initial noise does.
        (settings.method, settings.eta) = (.ddim, 0)
        try makeOutputFolder(pictureFolder)
        let step = model.folder.step ?? lastStep
        let text = step.map { [(key: "step", value: String($0))] } ?? []
        func write(_ image: Image, _ kind: ReportPictureKind) throws {
            try image.write(to: "\(pictureFolder)/\(kind.fileName)", text: text)
        }
        let strip = try pictures.denoisingStrip(
            Self.stripSamples, moments: Self.frames - 1, settings, progress: progress)
        if let strip { try write(strip, .denoising) }
        let images = try pictures.interpolation(
            Self.pairs, frames: Self.frames, settings, progress: progress)
        if let images { try write(ImageGrid(columns: Self.frames).render(images), .interpolation) }
    }

    private static let stripSamples = 3
    private static let frames = 9
    private static let pairs: [(UInt64, UInt64)] = [(0, 1), (2, 3), (4, 5)]

    /// Samples that are denoised, each by all steps.
    static var drawnSamples: Int { stripSamples + pairs.count * frames }
}
