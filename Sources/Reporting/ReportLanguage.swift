import Foundation
import Support

/// The language of a report. Each text appears in the source in both languages, side by side, so that neither
/// is forgotten:
///
///     say("Loss over steps", "損失の推移")
package enum ReportLanguage: String, Sendable, CaseIterable {
    case english = "en"
    case japanese = "ja"

    func callAsFunction(_ english: String, _ japanese: String) -> String {
        self == .english ? english : japanese
    }

    // MARK: Numbers

    /// An integer with thousands separators, such as 15,000.
    func whole(_ number: Int) -> String {
        let digits = Array(String(number.magnitude))
        var text = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text.append(",") }
            text.append(digit)
        }
        return (number < 0 ? "−" : "") + text
    }

    /// A number with `digits` significant digits and no further zeros: 0.0432, 12.3, 1.2e-07.
    func number(_ value: Double, digits: Int = 3) -> String {
        guard value.isFinite else { return "–" }
        if value == 0 { return "0" }
        let size = abs(value)
        if size >= 999.5, size < 1e9 { return whole(Int(value.rounded())) }
        guard size >= 1e-4, size < 1e9 else { return String(format: "%.\(max(0, digits - 1))e", value) }
        let decimals = max(0, digits - 1 - Int(floor(log10(size))))
        return String(format: "%.\(decimals)f", value)
    }

    /// A learning rate in short notation, such as 2e-4, or 1.5e-5 instead of 1.5e-05.
    func rate(_ value: Double) -> String {
        guard value.isFinite, value != 0 else { return value == 0 ? "0" : "–" }
        let exponent = Int(floor(log10(abs(value))))
        guard exponent < -2 || exponent > 5 else { return String(format: "%g", value) }
        return String(format: "%.3g", value / pow(10, Double(exponent))) + "e\(exponent)"
    }

    func percent(_ part: Double) -> String {
        part > 0 && part < 0.1 ? String(format: "%.1f %%", 100 * part) : String(format: "%.0f %%", 100 * part)
    }

    /// A number of parameters, such as 46,239, 0.412 M, 35.7 M or 1.20 G.
    func parameters(_ count: Int) -> String {
        let value = Double(count)
        if value < 1e5 { return whole(count) }
        return value < 1e9 ? number(value / 1e6) + " M" : number(value / 1e9) + " G"
    }

    /// A duration in words.
    func span(_ seconds: Double) -> String {
        let text = duration(seconds)
        guard self == .japanese else { return text }
        let words = ["s": "秒", "min": "分", "h": "時間", "d": "日", "unknown": "不明"]
        return text.split(separator: " ").map { words[String($0)] ?? String($0) }.joined(separator: " ")
    }

    /// Formats seconds since 1970 as a date and time in UTC.
    func time(_ seconds: Double) -> String {
        guard seconds.isFinite, abs(seconds) < 1e11 else { return "–" }
        let text = Date(timeIntervalSince1970: seconds).formatted(.iso8601)
        return text.prefix(16).replacingOccurrences(of: "T", with: " ") + " UTC"
    }

    /// A list in words, such as "a, b and c".
    func list(_ items: [String]) -> String {
        guard let last = items.last else { return "" }
        if items.count == 1 { return last }
        return items.dropLast().joined(separator: self(", ", "、")) + self(" and ", "、") + last
    }
}
