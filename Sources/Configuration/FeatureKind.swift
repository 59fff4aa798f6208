/// The features by which images are compared.
package enum FeatureKind: String, Sendable, CaseIterable {
    /// Pooled features of FID's Inception network.
    case inception
    /// The latents of the run's own first stage.
    case vae
    /// The pixels of a downscaled image.
    case pixel

    /// The name of the Fréchet distance. Only the distance of Inception features is FID; the others have
    /// different names to prevent confusion.
    package var distanceName: String { self == .inception ? "fid" : "fd_\(rawValue)" }
    /// The name of the kernel distance, by the same rule.
    package var kernelName: String { self == .inception ? "kid" : "kd_\(rawValue)" }
}
