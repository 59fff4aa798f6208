import FileFormats
import Foundation
import Imaging
import Support

/// The PNG and JPEG files of a folder or of archives, in bytewise order of their names; several archives in
/// their order.
///
/// Files with the name of an image and the extension `.cls`, `.json`, `.txt` or `.caption` belong to it, as in
/// WebDataset: `.cls` has its class, and the others are ignored. `dataset.json` has the classes of all images,
/// as written by the dataset_tool of EDM and StyleGAN. Hidden files are ignored. Other files are an error, or
/// with `skipBad` are skipped and listed in ``skipped``.
struct ImageFiles: ImageSource {
    let name: String
    let skipped: [String]
    let content: SourceContent?
    let labelOrigin: LabelOrigin
    private let files: FileSet
    private let images: [FileSet.Entry]
    /// For each image, the index of its `.cls` file in `classFiles`; empty if there are none.
    private let classFileIndex: [Int32]
    private let classFiles: [FileSet.Entry]
    private let limits: ImageLimits

    /// The file in which dataset_tool stores labels.
    private static let table = "dataset.json"
    /// Limits in bytes on the file, and on a `.cls` file.
    private static let maximumTable = 1 << 30
    private static let maximumClass = 1 << 12

    init(_ files: consuming FileSet, name: String, skipBad: Bool, limits: ImageLimits) throws(ImageError) {
        let parts = Parts(files.takeEntries())
        let files = files
        var others = parts.others.map(files.name).sorted(by: ItemNames.precedes)
        try ItemNames.check(name: name, images: parts.images.count, others: others, skipBad: skipBad)
        others += files.skipped
        let images = parts.images
        self.name = name
        skipped = others
        (self.files, self.images, self.limits) = (files, images, limits)
        (classFileIndex, classFiles) = (parts.classFileIndex, parts.classFiles)
        let hasTable = !parts.tables.isEmpty
        if hasTable, !classFiles.isEmpty {
            throw ImageError(
                .mixed, name: name,
                "labels in both \(Self.table) and \(classFiles.count) .cls files (\(files.name(classFiles[0]))); "
                    + "remove one of them")
        }
        let tables = parts.tables
        if hasTable {
            labelOrigin = .table(
                Self.table,
                LabelTable { () throws(ImageError) in try Self.readTables(tables, files, images) })
        } else {
            labelOrigin = classFiles.isEmpty ? .folders : .items("the .cls files")
        }
        content = SourceContent(
            count: images.count, name: { files.name(images[$0]) }, size: { images[$0].size },
            read: { index, body throws(ImageError) in
                // Larger files are rejected when they are decoded.
                try files.readPieces(images[index], limit: limits.maximumFileBytes, body)
            })
    }

    var count: Int { images.count }
    func itemName(at index: Int) -> String { files.name(images[index]) }

    func image(at index: Int) throws(ImageError) -> Image {
        let bytes = try files.image(images[index], limits: limits)
        return try Image.decode(bytes, name: files.path(images[index]), limits: limits)
    }

    func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        Image.size(of: try files.image(images[index], limits: limits))
    }

    // MARK: Labels

    func label(at index: Int) throws(ImageError) -> String? {
        switch labelOrigin {
        case .folders: return ItemNames.label(images[index].name)
        case .items:
            guard classFileIndex[index] >= 0 else { return nil }
            let file = classFiles[Int(classFileIndex[index])]
            guard file.size <= Self.maximumClass else {
                throw ImageError(
                    .badArchive, name: files.path(file),
                    "\(file.size) bytes; expected the name or number of a class")
            }
            let text = String(decoding: try files.content(file), as: UTF8.self)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            return text.isEmpty ? nil : text
        case .table(_, let table): return try table.labels()[index]
        case .none: return nil
        }
    }

    /// Reads the labels of all images from `dataset.json`: {"labels": [["00000/img00000000.png", 6], …]}, or
    /// null without labels.
    private static func readTables(
        _ tables: [FileSet.Entry], _ files: FileSet, _ images: [FileSet.Entry]
    ) throws(ImageError) -> [String?] {
        var labels: [String?] = Array(repeating: nil, count: images.count)
        for table in tables {
            let name = files.path(table)
            func damaged(_ detail: String) -> ImageError {
                ImageError(
                    .badArchive, name: name,
                    "\(detail); expected {\"labels\": [[\"FILE\", CLASS], …]} or {\"labels\": null}")
            }
            guard table.size <= maximumTable else { throw damaged("\(table.size) bytes") }
            let json: JSONValue
            do {
                json = try JSONValue(parsing: files.content(table)[...])
            } catch let error as ImageError {
                throw error
            } catch {
                throw damaged("\(error)")
            }
            guard let list = json["labels"] else { throw damaged("it has no labels") }
            if list.kind == JSONValue.null.kind { continue }
            guard let rows = list.arrayValue else { throw damaged("its labels are \(list.kind)") }
            var byName: [String: String] = [:]
            byName.reserveCapacity(rows.count)
            for row in rows {
                guard let pair = row.arrayValue, pair.count == 2, let file = pair[0].stringValue,
                    let label = pair[1].stringValue ?? pair[1].intValue.map(String.init)
                else { throw damaged("label \(byName.count) is not a pair of a file and a number") }
                byName[file] = label
            }
            for (index, image) in images.enumerated() where image.container == table.container {
                labels[index] = byName[image.name]
            }
        }
        return labels
    }

    // MARK: Sorting out

    /// The files of a source by their purpose.
    private struct Parts {
        var images: [FileSet.Entry] = []
        var others: [FileSet.Entry] = []
        var classFiles: [FileSet.Entry] = []
        /// The files named `dataset.json`, at most one in each folder or archive.
        var tables: [FileSet.Entry] = []
        private(set) var classFileIndex: [Int32] = []

        init(_ entries: consuming [FileSet.Entry]) {
            images = entries
            var sidecars: [FileSet.Entry] = []
            for entry in images where !ItemNames.isImage(entry.name) {
                if entry.name == ImageFiles.table {
                    tables.append(entry)
                } else if [".cls", ".json", ".txt", ".caption"].contains(where: { entry.name.hasSuffix($0) })
                {
                    sidecars.append(entry)
                } else {
                    others.append(entry)
                }
            }
            if tables.count + sidecars.count + others.count > 0 {
                images.removeAll { !ItemNames.isImage($0.name) }
            }
            images.sort {
                $0.container == $1.container
                    ? ItemNames.precedes($0.name, $1.name) : $0.container < $1.container
            }
            if !sidecars.isEmpty { assign(sidecars) }
        }

        /// Finds the images that sidecars belong to, one container after the other, to keep the table small.
        private mutating func assign(_ sidecars: [FileSet.Entry]) {
            var index: [Int32] = Array(repeating: -1, count: images.count)
            let groups = Dictionary(grouping: sidecars, by: \.container)
            var start = 0
            var known: [Substring: Int] = [:]
            while start < images.count {
                let container = images[start].container
                let end = images[start...].firstIndex { $0.container != container } ?? images.count
                defer { start = end }
                guard let sidecars = groups[container] else { continue }
                known.removeAll(keepingCapacity: true)
                for image in start..<end { known[ItemNames.stem(images[image].name)] = image }
                for sidecar in sidecars {
                    guard let image = known[ItemNames.stem(sidecar.name)] else {
                        others.append(sidecar)
                        continue
                    }
                    guard sidecar.name.hasSuffix(".cls") else { continue }
                    index[image] = Int32(classFiles.count)
                    classFiles.append(sidecar)
                }
            }
            let used = Set(images.map(\.container))
            others += sidecars.filter { !used.contains($0.container) }
            classFileIndex = classFiles.isEmpty ? [] : index
        }
    }
}
