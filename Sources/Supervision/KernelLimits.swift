import Foundation

/// Detects environment variables that restrict OpenBLAS or oneDNN to less than this processor supports.
///
/// If they are inherited from an environment made for other machines, they can silently halve the speed of
/// every matrix product.
package enum KernelLimits {
    /// Vector instruction sets; each level includes those below it.
    package enum Level: Int, Comparable {
        case sse, avx, fma, avx2, avx512, avx512bf16

        package static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

        package var name: String {
            switch self {
            case .sse: "SSE"
            case .avx: "AVX"
            case .fma: "AVX with FMA"
            case .avx2: "AVX2"
            case .avx512: "AVX-512"
            case .avx512bf16: "AVX-512 with bf16"
            }
        }
    }

    /// One line for each variable that restricts a library.
    package static func warnings(
        environment: [String: String] = ProcessInfo.processInfo.environment, root: String = "/"
    ) -> [String] {
        guard let processor = processorLevel(root: root) else { return [] }
        // OpenBLAS is used for fp32 only.
        let variables = [
            ("OPENBLAS_CORETYPE", "matrix products", openBLAS, min(processor, .avx512)),
            ("ONEDNN_MAX_CPU_ISA", "convolutions", oneDNN, processor),
            ("DNNL_MAX_CPU_ISA", "convolutions", oneDNN, processor),
        ]
        return variables.compactMap { variable, what, levels, possible in
            guard let value = environment[variable], let forced = levels[value.lowercased()],
                forced < possible
            else { return nil }
            return
                "\(variable)=\(value) limits \(what) to \(forced.name) on a processor with \(possible.name); "
                + "`unset \(variable)` for full speed"
        }
    }

    /// Returns nil on processors other than x86-64.
    private static func processorLevel(root: String) -> Level? {
        let lines = KernelFiles(root: root).lines("proc/cpuinfo")
        guard let line = lines.first(where: { $0.hasPrefix("flags") }) else { return nil }
        let flags = Set(line.drop { $0 != ":" }.dropFirst().split(separator: " "))
        if flags.isSuperset(of: ["avx512f", "avx512dq", "avx512bw", "avx512vl"]) {
            return flags.contains("avx512_bf16") ? .avx512bf16 : .avx512
        }
        if flags.isSuperset(of: ["avx2", "fma"]) { return .avx2 }
        if flags.contains("avx") { return .avx }
        return .sse
    }

    /// OpenBLAS names of its x86-64 kernels (driver/others/dynamic.c).
    private static let openBLAS: [String: Level] = {
        var levels: [String: Level] = [:]
        for name in [
            "prescott", "core2", "penryn", "dunnington", "nehalem", "atom", "nano", "athlon", "opteron",
            "opteron_sse3", "barcelona", "bobcat",
        ] { levels[name] = .sse }
        for name in ["sandybridge", "bulldozer"] { levels[name] = .avx }
        for name in ["piledriver", "steamroller"] { levels[name] = .fma }
        for name in ["haswell", "zen", "excavator"] { levels[name] = .avx2 }
        for name in ["skylakex", "cooperlake", "sapphirerapids"] { levels[name] = .avx512 }
        return levels
    }()

    /// oneDNN names of instruction sets (oneDNN developer guide, "CPU dispatcher control").
    private static let oneDNN: [String: Level] = [
        "sse41": .sse, "avx": .avx, "avx2": .avx2, "avx2_vnni": .avx2, "avx2_vnni_2": .avx2,
        "avx512_core": .avx512, "avx512_core_vnni": .avx512,
    ]
}
