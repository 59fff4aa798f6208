import Datasets
import Foundation
import Harness
import Imaging

private let file = ScratchFile()

/// An archive of images (tar or zip), or an array: every member is listed, decoded and hashed.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    file.set(start, count)
    let input = UnsafeBufferPointer(start: start, count: count)
    // Other archives and arrays have more images than blocks of 512 bytes.
    let isTar = ![[0x1F, 0x8B], [0x50, 0x4B], [0x93], [0x28, 0xB5], [0xFD], [0x42, 0x5A]].contains {
        input.starts(with: $0)
    }
    for skipBad in [false, true] {
        expectCleanly(knows: { $0 is ImageError }) {
            let source = try openImageSource(
                file.path, skipBad: skipBad, limits: ImageLimits(megapixels: 1))
            precondition(source.count > 0)
            precondition(!isTar || source.count <= count / 512, "more members than blocks")
            for index in 0..<source.count {
                expectCleanly(knows: { $0 is ImageError }) { _ = try source.label(at: index) }
                precondition(!source.itemName(at: index).hasPrefix("/"))
                expectCleanly(knows: { $0 is ImageError }) {
                    let image = try source.image(at: index)
                    let size = try source.size(at: index)
                    precondition(
                        size.map { $0 == (image.width, image.height) } == true, "another size in the header")
                }
            }
            precondition(source.fingerprint.utf8.count == 19 && source.sampledFingerprint.utf8.count == 16)
        }
    }
    return 0
}

@_silgen_name("LLVMFuzzerMutate")
private func mutate(_ data: UnsafeMutablePointer<UInt8>, _ size: Int, _ limit: Int) -> Int

/// Mostly keeps the headers' checksums right, or else nearly every input would fail at the first header.
@_cdecl("LLVMFuzzerCustomMutator")
public func mutateFile(
    _ data: UnsafeMutablePointer<UInt8>, _ size: Int, _ limit: Int, _ seed: UInt32
) -> Int {
    let size = mutate(data, size, limit)
    guard seed % 8 != 0 else { return size }
    var at = 0
    while at + 512 <= size {
        let block = UnsafeMutableBufferPointer(start: data + at, count: 512)
        if block.allSatisfy({ $0 == 0 }) { break }
        for index in 148..<156 { block[index] = 0x20 }
        var sum = block.reduce(0) { $0 + Int($1) }
        for index in (148..<154).reversed() {
            block[index] = UInt8(0x30 + sum % 8)
            sum /= 8
        }
        block[154] = 0
        let digits = block[124..<136].prefix { (0x30...0x37).contains($0) }.suffix(4)
        let bytes = digits.reduce(0) { $0 << 3 | Int($1 - 0x30) }
        at += 512 + (bytes + 511) / 512 * 512
    }
    return size
}
