import Configuration
import Harness

/// A configuration of a diffusion model and of an autoencoder: what is accepted is written so that it reads back as the
/// same.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let text = String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
    expectCleanly {
        let resolved = try Configuration(yaml: text, source: "fuzz").resolvedYAML()
        let again = try Configuration(yaml: resolved, source: "again").resolvedYAML()
        precondition(again == resolved, "reads back differently")
    }
    expectCleanly {
        let resolved = try AutoencoderConfiguration(yaml: text, source: "fuzz").resolvedYAML()
        let again = try AutoencoderConfiguration(yaml: resolved, source: "again").resolvedYAML()
        precondition(again == resolved, "reads back differently")
    }
    return 0
}
