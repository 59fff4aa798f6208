/// Pictures of a model's sampling, stored in the run's `report` folder.
package enum SamplingPictureKind: String, CaseIterable {
    case denoising, interpolation

    package var fileName: String { "\(rawValue).png" }
}
