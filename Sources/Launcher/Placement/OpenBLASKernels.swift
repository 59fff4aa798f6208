import Foundation

/// What OPENBLAS_CORETYPE makes of this processor.
///
/// The variable tells OpenBLAS which kernels to take instead of those it would pick. Inherited from an
/// environment made for other machines it can halve the speed of every matrix product, silently.
public enum OpenBLASKernels {
    /// Vector instructions, each level including those below.
    enum Level: Int, Comparable {
        case sse, avx, fma, avx2, avx512

        static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

        var name: String {
            switch self {
            case .sse: "SSE"
            case .avx: "AVX"
            case .fma: "AVX with FMA"
            case .avx2: "AVX2"
            case .avx512: "AVX-512"
            }
        }
    }

    /// One line when the variable holds OpenBLAS below what the processor can do, else nil.
    public static func warning(
        environment: [String: String] = ProcessInfo.processInfo.environment, root: String = "/"
    ) -> String? {
        guard let coreType = environment["OPENBLAS_CORETYPE"], let forced = levels[coreType.lowercased()],
            let possible = processorLevel(root: root), forced < possible
        else { return nil }
        return "OPENBLAS_CORETYPE=\(coreType) holds matrix products to \(forced.name) on a processor with "
            + "\(possible.name); `unset OPENBLAS_CORETYPE` for full speed"
    }

    /// Nil on anything that is not x86-64.
    private static func processorLevel(root: String) -> Level? {
        let lines = KernelFiles(root: root).lines("proc/cpuinfo")
        guard let line = lines.first(where: { $0.hasPrefix("flags") }) else { return nil }
        let flags = Set(line.drop { $0 != ":" }.dropFirst().split(separator: " "))
        if flags.isSuperset(of: ["avx512f", "avx512dq", "avx512bw", "avx512vl"]) { return .avx512 }
        if flags.isSuperset(of: ["avx2", "fma"]) { return .avx2 }
        if flags.contains("avx") { return .avx }
        return .sse
    }

    /// OpenBLAS's own names of its x86-64 kernels (driver/others/dynamic.c).
    private static let levels: [String: Level] = {
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
}
