import FileFormats
import Harness
import LDMModel
import Support
import TensorCore

/// A configuration, read as each class: what is accepted can be built, and written so that it reads back as the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    guard let json = try? JSONValue(parsing: bytes[...]) else { return 0 }
    var node = ConfigNode(json, source: "fuzz")
    expectCleanly { _ = try read(node, as: UNet2DConfig.self) }
    expectCleanly { _ = try read(node, as: SchedulerConfig.self) }
    // Read as the other classes, too.
    node["_class_name"] = nil
    expectCleanly { checkStore(try UNet2DModel(read(node, as: UNet2DConfig.self)).store) }
    expectCleanly { checkStore(try AutoencoderKL(read(node, as: AutoencoderKLConfig.self)).store) }
    expectCleanly { checkStore(try VQModel(read(node, as: VQModelConfig.self)).store) }
    expectCleanly {
        let config = try read(node, as: SchedulerConfig.self)
        for kind in SamplerKind.allCases {
            for steps in [1, 2, 7, config.numTrainTimesteps] {
                expectCleanly {
                    let sampler = try config.with(kind).sampler(steps: steps)
                    let last = Float(config.numTrainTimesteps + config.stepsOffset)
                    precondition(sampler.timesteps.allSatisfy { $0 >= 0 && $0 <= last })
                }
            }
        }
    }
    return 0
}

private func read<Config: DiffusersConfig>(_ node: ConfigNode, as type: Config.Type) throws -> Config {
    let config = try Config(config: node, path: ["model"])
    let text = try config.jsonText()
    let again = try Config(config: ConfigNode(JSONValue(parsing: text)), path: []).jsonText()
    precondition(again == text, "reads back differently")
    return config
}

/// Nothing is allocated, and the sizes do not overflow.
private func checkStore(_ store: ParameterStore) {
    precondition(store.count >= store.parameterCount && store.parameterCount > 0)
    precondition(store.parameters.count < 100_000, "\(store.parameters.count) parameters")
    expectCleanly { try store.checkMemory() }
}
