#!/bin/bash
# Regenerates the Swift code of Sources/RecordProtocols from its .proto files, with Debian's protoc and swift-protobuf's
# plugin in the version that the package resolves, which the first call builds (minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v protoc >/dev/null; then
    echo "protos: no protoc in PATH; on Debian or Ubuntu: sudo apt-get install protobuf-compiler" >&2
    exit 1
fi
swift package resolve
plugin_package=.build/checkouts/swift-protobuf
plugin=$PWD/.build/protoc-gen-swift/release/protoc-gen-swift
if [[ ! -x $plugin || $plugin_package/Package.swift -nt $plugin ]]; then
    swift build -c release --package-path "$plugin_package" --scratch-path .build/protoc-gen-swift \
        --product protoc-gen-swift
fi

cd Sources/RecordProtocols
protoc --plugin=protoc-gen-swift="$plugin" --swift_out=. --swift_opt=Visibility=Public ./*.proto
ls -1 ./*.pb.swift
