import Foundation
import Imaging
import Support

/// The labels of a CSV file: one row for each image, with its name and its class.
///
/// The first row may name the columns. Fields are separated by commas, semicolons or tabs, and may be in double
/// quotes (RFC 4180).
struct LabelFile {
    private let path: String
    private let rows: [(file: String, label: String, line: Int)]

    private static let maximumBytes = 1 << 30
    private static let fileTitles: Set<String> = [
        "filename", "file", "file_name", "image", "image_id", "image_name", "img", "path", "filepath", "id",
        "name", "key",
    ]
    private static let labelTitles: Set<String> = [
        "label", "labels", "class", "class_name", "classname", "category", "target", "class_id", "label_name",
    ]

    init(_ path: String) throws(DatasetError) {
        self.path = path
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try readWholeFile(path, limit: Self.maximumBytes)
        } catch {
            throw DatasetError(
                .inaccessible, "--labels \(error.description); expected a CSV file, or `none`",
                code: error.code)
        }
        var table = try Self.parse(bytes, path)
        guard let first = table.first else {
            throw DatasetError(
                .mismatch, "--labels \(path): is empty, expected rows of a file name and a class")
        }
        let titles = first.fields.map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
        var columns = (file: 0, label: 1)
        let label = titles.firstIndex { Self.labelTitles.contains($0) }
        let file = titles.firstIndex { Self.fileTitles.contains($0) }
        let hasHeader = label != nil || file != nil
        if hasHeader {
            let fileColumn = file ?? (titles.count == 2 ? 1 - (label ?? 1) : nil)
            let labelColumn = label ?? (titles.count == 2 ? 1 - (file ?? 0) : nil)
            guard let fileColumn, let labelColumn, fileColumn != labelColumn else {
                throw DatasetError(
                    .mismatch,
                    "--labels \(path): has the columns \(shortList(titles)); expected filename and label")
            }
            columns = (fileColumn, labelColumn)
            table.removeFirst()
        }
        var rows: [(file: String, label: String, line: Int)] = []
        rows.reserveCapacity(table.count)
        for row in table {
            guard hasHeader ? row.fields.count > max(columns.file, columns.label) : row.fields.count == 2
            else {
                throw DatasetError(
                    .mismatch,
                    "--labels \(path): line \(row.line) has \(row.fields.count) fields; expected a file name and a "
                        + "class"
                        + (hasHeader ? "" : ", or a first line with the columns' names, filename and label"))
            }
            let file = row.fields[columns.file].trimmingCharacters(in: .whitespaces)
            let label = row.fields[columns.label].trimmingCharacters(in: .whitespaces)
            guard !file.isEmpty, !label.isEmpty else {
                throw DatasetError(
                    .mismatch,
                    "--labels \(path): line \(row.line) has no \(file.isEmpty ? "file name" : "class")")
            }
            rows.append((file.hasPrefix("./") ? String(file.dropFirst(2)) : file, label, row.line))
        }
        self.rows = rows
    }

    /// The labels of the first `count` items. A row names an item by its path in the source, or by its file
    /// name alone if that is unique.
    ///
    /// - Throws: if rows name no item, or two classes for the same one, or if items have no row.
    func labels(of source: any ImageSource, count: Int) throws(DatasetError) -> LabelList {
        var items: [String: Int] = [:]
        items.reserveCapacity(source.count)
        for index in 0..<source.count { items[source.itemName(at: index)] = index }
        // By the file name alone, where the rows have no folders; -1 if it is not unique.
        var byFile: [String: Int] = [:]
        if rows.contains(where: { items[$0.file] == nil && !$0.file.contains("/") }) {
            for index in 0..<source.count {
                let file = ItemNames.file(source.itemName(at: index))
                byFile[file] = byFile[file] == nil ? index : -1
            }
        }
        var labels: [String?] = Array(repeating: nil, count: source.count)
        var unknown: [String] = []
        for row in rows {
            guard let index = items[row.file] ?? byFile[row.file] else {
                unknown.append(row.file)
                continue
            }
            guard index >= 0 else {
                throw DatasetError(
                    .mismatch,
                    "--labels \(path): line \(row.line): several images are named \(row.file); give their paths inside "
                        + source.name)
            }
            if let earlier = labels[index], earlier != row.label {
                throw DatasetError(
                    .mismatch,
                    "--labels \(path): line \(row.line): \(row.file) is \"\(row.label)\", but \"\(earlier)\" in an "
                        + "earlier line")
            }
            labels[index] = row.label
        }
        guard unknown.isEmpty else {
            throw DatasetError(
                .mismatch,
                "--labels \(path): \(unknown.count) of \(rows.count) rows name no image of \(source.name) "
                    + "(\(shortList(unknown, limit: 3))); its images have names such as \(source.itemName(at: 0))"
            )
        }
        let missing = (0..<count).filter { labels[$0] == nil }
        guard missing.isEmpty else {
            throw DatasetError(
                .mismatch,
                "--labels \(path): \(missing.count) of \(count) images of \(source.name) have no row "
                    + "(\(shortList(missing.prefix(4).map { source.itemName(at: $0) }, limit: 3))); add rows, or remove "
                    + "the images")
        }
        return LabelList(labels.prefix(count))
    }

    // MARK: Parsing

    private static func parse(
        _ bytes: [UInt8], _ path: String
    ) throws(DatasetError) -> [(fields: [String], line: Int)] {
        let quote = UInt8(ascii: "\""), newline = UInt8(ascii: "\n"), carriageReturn = UInt8(ascii: "\r")
        var at = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
        let firstLine = bytes[at...].prefix { $0 != newline }
        let separator = [UInt8(ascii: ","), UInt8(ascii: "\t"), UInt8(ascii: ";")].first(
            where: firstLine.contains)
        var rows: [(fields: [String], line: Int)] = []
        var fields: [String] = []
        var line = 1
        while at < bytes.count {
            var field: [UInt8] = []
            if bytes[at] == quote {
                let opened = line
                at += 1
                while true {
                    guard at < bytes.count else {
                        throw DatasetError(
                            .mismatch, "--labels \(path): the quote in line \(opened) has no end")
                    }
                    if bytes[at] == quote {
                        at += 1
                        guard at < bytes.count, bytes[at] == quote else { break }
                    }
                    if bytes[at] == newline { line += 1 }
                    field.append(bytes[at])
                    at += 1
                }
            }
            let start = at
            while at < bytes.count, bytes[at] != newline, bytes[at] != separator { at += 1 }
            field += bytes[start..<at]
            if at == bytes.count || bytes[at] == newline, field.last == carriageReturn { field.removeLast() }
            guard let text = String(validating: field, as: UTF8.self) else {
                throw DatasetError(
                    .mismatch, "--labels \(path): line \(line) is not UTF-8; save the file as UTF-8")
            }
            fields.append(text)
            let isLast = at == bytes.count || bytes[at] == newline
            at += 1
            guard isLast else { continue }
            if fields != [""] { rows.append((fields, line)) }
            fields = []
            line += 1
        }
        if !fields.isEmpty { rows.append((fields + [""], line)) }
        return rows
    }
}
