/// What images are compared by.
package enum FeatureKind: String, Sendable, CaseIterable {
    /// FID's network, pooled.
    case inception
    /// The latents of the run's own first stage.
    case vae
    /// The pixels of a small picture.
    case pixel

    /// What the Fréchet distance is called: FID is Inception's alone, and no other distance may be mistaken for it.
    package var distanceName: String { self == .inception ? "fid" : "fd_\(rawValue)" }
    /// What the kernel distance is called, in the same way.
    package var kernelName: String { self == .inception ? "kid" : "kd_\(rawValue)" }
}
