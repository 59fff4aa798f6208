import FileFormats
import Foundation
import Support
import TensorCore

/// A tensor of samples in a safetensors file, [N, C, H, W] as in diffusers, read sample by sample.
struct SampleFile {
    let path: String
    let name: String
    let count: Int
    let height: Int
    let width: Int
    private let channels: Int
    private let file: SafetensorsFile

    /// Opens the first of `names` that the file contains, or its only tensor, whatever its name.
    ///
    /// - Parameters:
    ///   - factor: height and width must be multiples of it.
    ///   - reader: the consumer of the samples, for error messages ("the U-Net").
    init(
        _ path: String, names: [String], channels: Int, multipleOf factor: Int = 1, for reader: String
    ) throws {
        self.path = path
        self.channels = channels
        file = try SafetensorsFile(path: path)
        let only = file.names.count == 1 ? file.names.first : nil
        guard let name = names.first(where: file.contains) ?? only else {
            throw RunError(
                "\(path): holds \(file.names.isEmpty ? "nothing" : file.names.joined(separator: ", ")), expected "
                    + "a tensor \(names.map { "'\($0)'" }.joined(separator: " or ")), or a single tensor",
                exitStatus: ExitStatus.refused)
        }
        self.name = name
        let info = try file.info(of: name)
        let shape = info.shape
        guard shape.count == 4, shape[0] > 0, shape[1] == channels, info.dtype.isFloatingPoint,
            [shape[2], shape[3]].allSatisfy({ $0 > 0 && $0 % factor == 0 })
        else {
            let sides = factor == 1 ? "" : ", H and W multiples of \(factor)"
            throw RunError(
                "\(path): \(name) is \(info.dtype.rawValue) \(info.shapeText), but \(reader) takes floating-point "
                    + "numbers [N, \(channels), H, W]\(sides)",
                exitStatus: ExitStatus.refused)
        }
        (count, height, width) = (shape[0], shape[2], shape[3])
    }

    /// Samples `range`, [B, H, W, C].
    func samples(_ range: Range<Int>) throws -> [Float] {
        Layout.nhwc(
            try file.floats(of: name, rows: range), batch: range.count, height: height, width: width,
            channels: channels)
    }
}
