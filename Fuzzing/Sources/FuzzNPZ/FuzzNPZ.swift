import Evaluation
import Foundation
import Harness
import Imaging
import Support

private let file = ScratchFile(NSTemporaryDirectory() + "fuzz-\(getpid()).npz")

/// An .npz file; or, where the input begins with the mark of an .npy file, that as `mu` of an archive with a right
/// checksum, since few changed inputs would get past it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    let archive = input.first == 0x93 ? zip([("mu.npy", input), ("sigma.npy", sigma)]) : input
    archive.withUnsafeBufferPointer { file.set($0.baseAddress, $0.count) }
    expectCleanly(knows: { $0 is ImageError || $0 is any ReportableError }) {
        let statistics = try FeatureStatistics(npz: file.path)
        precondition(statistics.covariance.count == statistics.dimension * statistics.dimension)
        precondition(statistics.covariance.allSatisfy(\.isFinite))
    }
    return 0
}

/// One value, 1.
private let sigma: [UInt8] = {
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }\n"
    return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(header.utf8.count), 0] + Array(header.utf8)
        + withUnsafeBytes(of: 1.0.bitPattern.littleEndian) { Array($0) }
}()
