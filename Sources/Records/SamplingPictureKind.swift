/// Pictures of a model's sampling, by their files in a run's `report` folder.
package enum SamplingPictureKind: String, CaseIterable {
    case denoising, interpolation

    package var fileName: String { "\(rawValue).png" }
}
