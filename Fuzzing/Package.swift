// swift-tools-version: 6.2
import PackageDescription

// Readers of files and of the network under libFuzzer; run.sh builds and runs them. A package of its own, so that the
// program and its tests need nothing of it.
let targets = ["FuzzJSON", "FuzzSafetensors", "FuzzIndex", "FuzzConfig"]
let package = Package(
    name: "fuzzing",
    dependencies: [.package(name: "disttrain", path: "..")],
    targets: [
        .target(name: "Harness", dependencies: [.product(name: "LDMModel", package: "disttrain")])
    ]
        + targets.map {
            .executableTarget(
                name: $0, dependencies: ["Harness", .product(name: "LDMModel", package: "disttrain")],
                // libFuzzer brings main.
                swiftSettings: [.unsafeFlags(["-parse-as-library"])])
        }
        + ["FuzzYAML", "FuzzTar", "FuzzNPZ", "FuzzEXIF", "FuzzWatcher"].map {
            .executableTarget(
                name: $0, dependencies: ["Harness", .product(name: "DistTrain", package: "disttrain")],
                swiftSettings: [.unsafeFlags(["-parse-as-library"])])
        }
)
