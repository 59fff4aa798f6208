import Foundation

// Number formats of the checkpoint tools.

/// A size in decimal units, such as "812 bytes" or "1.12 GB".
func byteText(_ bytes: Int) -> String {
    var (value, units) = (Double(bytes), ["kB", "MB", "GB", "TB", "PB"][...])
    if bytes < 1000 { return "\(bytes) bytes" }
    value /= 1000
    while value >= 999.5, units.count > 1 {
        value /= 1000
        units = units.dropFirst()
    }
    return String(format: value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value)
        + " \(units.first ?? "")"
}

/// A time in the local time zone, such as "2025-11-25 10:31".
func timeText(_ secondsSince1970: Double) -> String {
    // Reject values beyond the range of plausible dates.
    guard abs(secondsSince1970) < 1e11 else { return "unknown" }
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.dateFormat = "yyyy-MM-dd HH:mm"
    return formatter.string(from: Date(timeIntervalSince1970: secondsSince1970))
}

func metricText(_ value: Double) -> String { String(format: "%.5g", value) }

/// Rows as lines with aligned columns; all columns are left-aligned.
package func columns(_ rows: [[String]]) -> [String] {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
        let cells = row.enumerated().map { column, cell in
            column == row.count - 1
                ? cell : cell.padding(toLength: widths[column], withPad: " ", startingAt: 0)
        }
        return cells.joined(separator: "  ")
    }
}
