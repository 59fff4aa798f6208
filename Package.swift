// swift-tools-version: 6.2
import PackageDescription

// The direction of dependency is the architecture (docs/architecture.md):
// TensorCore knows no model, LDMModel knows no MPI, Launcher does no numerics.
let package = Package(
    name: "disttrain",
    products: [
        .executable(name: "disttrain", targets: ["Launcher"]),
        // For Fuzzing, a package of its own.
        .library(name: "LDMModel", targets: ["LDMModel", "TensorCore"]),
    ],
    traits: [
        .trait(name: "OneDNN", description: "Convolutions and bf16 on oneDNN; without it OpenBLAS does all."),
        .default(enabledTraits: ["OneDNN"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // System libraries, found by pkg-config.
        .systemLibrary(name: "COpenMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev"])]),
        .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
        .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
        .systemLibrary(name: "CJPEG", pkgConfig: "libjpeg", providers: [.apt(["libjpeg-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),

        // Thin C and C++ shims.
        .target(name: "MPIShim", dependencies: ["COpenMPI"]),
        .target(name: "CImageFiles", dependencies: ["CPNG", "CJPEG"]),
        .target(
            name: "CKernels",
            dependencies: ["COpenBLAS"],
            cSettings: [.define("DISTTRAIN_ONEDNN", .when(traits: ["OneDNN"]))],
            cxxSettings: [.define("DISTTRAIN_ONEDNN", .when(traits: ["OneDNN"]))],
            linkerSettings: [
                .linkedLibrary("gomp"),
                .linkedLibrary("m"),
                .linkedLibrary("dnnl", .when(traits: ["OneDNN"])),
            ]),

        // Swift.
        .target(name: "TensorCore", dependencies: ["CKernels"]),
        .target(name: "LDMModel", dependencies: ["TensorCore"]),
        .target(
            name: "DistTrain",
            dependencies: [
                "LDMModel", "TensorCore", "MPIShim", "CImageFiles", "CZlib",
                .product(name: "Yams", package: "Yams"),
                .product(name: "Logging", package: "swift-log"),
            ]),
        .executableTarget(
            name: "Launcher",
            dependencies: [
                "DistTrain",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),

        // TestSupport walks the golden cases of Tests/Fixtures (docs/fixtures.md).
        // What needs mpirun is a shell script under Tests/Integration, called by `make test`.
        // The golden values of TensorCoreTests are safetensors, which LDMModel reads.
        .testTarget(
            name: "TensorCoreTests", dependencies: ["TensorCore", "CKernels", "LDMModel"],
            exclude: ["Fixtures"]),
        .target(name: "TestSupport", dependencies: ["LDMModel"], path: "Tests/TestSupport"),
        .testTarget(
            name: "LDMModelTests", dependencies: ["LDMModel", "TestSupport"], exclude: ["Fixtures"]),
        .testTarget(
            name: "DistTrainTests", dependencies: ["DistTrain", "TestSupport"], exclude: ["Fixtures"]),
        .testTarget(name: "LauncherTests", dependencies: ["Launcher"]),
    ],
    cxxLanguageStandard: .cxx17
)

// Warnings are errors in this package's own code.
for target in package.targets
where target.type == .regular || target.type == .executable || target.type == .test {
    target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)]
}
