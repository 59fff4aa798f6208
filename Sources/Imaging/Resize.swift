import Foundation

/// A resampling filter. Both filters are widened when downscaling, to avoid aliasing.
package enum ResizeFilter: String, CaseIterable, Codable, Sendable {
    /// The exact average over the area that an output pixel covers, with fractional coverage at its border.
    case area
    /// Windowed sinc with three lobes, Pillow's LANCZOS: sharper than `area`, with slight ringing at hard
    /// edges.
    case lanczos
}

extension Image {
    /// Resizes by convolution in two passes, bit-identical to Pillow's `Image.resize` with LANCZOS.
    ///
    /// - Source: Pillow, src/libImaging/Resample.c: 8-bit intermediate, weights in fixed point of 22 bits.
    package func resized(width: Int, height: Int, filter: ResizeFilter = .lanczos) -> Image {
        precondition(width > 0 && height > 0, "an image has at least one pixel")
        var image = self
        if width != image.width {
            image = image.resampledRows(ResampleWeights(from: image.width, to: width, filter: filter))
        }
        if height != image.height {
            image = image.resampledColumns(ResampleWeights(from: image.height, to: height, filter: filter))
        }
        return image
    }

    private func resampledRows(_ weights: ResampleWeights) -> Image {
        let outWidth = weights.spans.count
        let C = channels
        let out = [UInt8](unsafeUninitializedCapacity: C * outWidth * height) { out, count in
            pixels.withUnsafeBufferPointer { pixels in
                weights.values.withUnsafeBufferPointer { values in
                    for y in 0..<height {
                        for x in 0..<outWidth {
                            let span = weights.spans[x]
                            let from = pixels.baseAddress! + C * (y * width + span.first)
                            let to = out.baseAddress! + C * (y * outWidth + x)
                            let taps = UnsafeBufferPointer(rebasing: values[span.weights])
                            if C == 3 {
                                Self.mixRGB(from, taps, to)
                            } else {
                                Self.mixGray(from, taps, to)
                            }
                        }
                    }
                }
            }
            count = C * outWidth * height
        }
        return Image(width: outWidth, height: height, channels: C, pixels: out)
    }

    /// One output pixel from neighbouring pixels of a row. All three channels at once are faster than a loop
    /// over them.
    private static func mixRGB(
        _ from: UnsafePointer<UInt8>, _ taps: UnsafeBufferPointer<Int32>, _ to: UnsafeMutablePointer<UInt8>
    ) {
        var (red, green, blue) = (ResampleWeights.half, ResampleWeights.half, ResampleWeights.half)
        var from = from
        for weight in taps {
            red &+= weight &* Int32(from[0])
            green &+= weight &* Int32(from[1])
            blue &+= weight &* Int32(from[2])
            from += 3
        }
        to[0] = ResampleWeights.byte(red)
        to[1] = ResampleWeights.byte(green)
        to[2] = ResampleWeights.byte(blue)
    }

    private static func mixGray(
        _ from: UnsafePointer<UInt8>, _ taps: UnsafeBufferPointer<Int32>, _ to: UnsafeMutablePointer<UInt8>
    ) {
        var sum = ResampleWeights.half
        for (tap, weight) in taps.enumerated() { sum &+= weight &* Int32(from[tap]) }
        to[0] = ResampleWeights.byte(sum)
    }

    private func resampledColumns(_ weights: ResampleWeights) -> Image {
        let outHeight = weights.spans.count
        let row = channels * width
        var sums = [Int32](repeating: 0, count: row)
        let out = [UInt8](unsafeUninitializedCapacity: row * outHeight) { out, count in
            pixels.withUnsafeBufferPointer { pixels in
                sums.withUnsafeMutableBufferPointer { sums in
                    for y in 0..<outHeight {
                        let span = weights.spans[y]
                        sums.update(repeating: ResampleWeights.half)
                        // Process one row per weight, so that the inner loop runs over adjacent values and
                        // vectorizes.
                        for (offset, tap) in span.weights.enumerated() {
                            let weight = weights.values[tap]
                            let from = pixels.baseAddress! + row * (span.first + offset)
                            for x in 0..<row { sums[x] &+= weight &* Int32(from[x]) }
                        }
                        for x in 0..<row { out[row * y + x] = ResampleWeights.byte(sums[x]) }
                    }
                }
            }
            count = row * outHeight
        }
        return Image(width: width, height: outHeight, channels: channels, pixels: out)
    }
}

/// For each output position, the range of input positions and their weights, which sum to one.
private struct ResampleWeights {
    /// Fractional bits: an Int32 also holds 8 bits of pixel value and 2 bits of headroom for negative lobes
    /// and overshoot.
    static let bits: Int32 = 22
    static let half: Int32 = 1 << (bits - 1)

    /// For each output position: the first input position, and the range of its weights in `values`.
    private(set) var spans: [(first: Int, weights: Range<Int>)] = []
    private(set) var values: [Int32] = []

    init(from inSize: Int, to outSize: Int, filter: ResizeFilter) {
        let scale = Double(inSize) / Double(outSize)
        for out in 0..<outSize {
            let (first, weights) =
                switch filter {
                case .area: Self.area(out, scale: scale, inSize: inSize)
                case .lanczos: Self.lanczos(out, scale: scale, inSize: inSize)
                }
            let total = weights.reduce(0, +)
            let start = values.count
            values += weights.map { Int32(($0 / total * Double(1 << Self.bits)).rounded()) }
            spans.append((first, start..<values.count))
        }
    }

    static func byte(_ sum: Int32) -> UInt8 { UInt8(clamping: sum >> bits) }

    private static func area(_ out: Int, scale: Double, inSize: Int) -> (Int, [Double]) {
        let low = Double(out) * scale
        let high = low + scale
        let first = min(Int(low), inSize - 1)
        let end = max(first + 1, min(Int(high.rounded(.up)), inSize))
        let weights = (first..<end).map { max(0, min(high, Double($0 + 1)) - max(low, Double($0))) }
        // The sum must not be zero if rounding leaves an empty overlap.
        return (first, weights.contains { $0 > 0 } ? weights : weights.map { _ in 1 })
    }

    private static func lanczos(_ out: Int, scale: Double, inSize: Int) -> (Int, [Double]) {
        let stretch = max(scale, 1)
        let center = (Double(out) + 0.5) * scale
        let support = 3 * stretch
        let first = max(Int(center - support + 0.5), 0)
        let end = min(Int(center + support + 0.5), inSize)
        return (first, (first..<end).map { lanczos3((Double($0) - center + 0.5) / stretch) })
    }

    private static func lanczos3(_ x: Double) -> Double {
        if x == 0 { return 1 }
        guard abs(x) < 3 else { return 0 }
        return sin(.pi * x) * sin(.pi * x / 3) * 3 / (.pi * .pi * x * x)
    }
}
