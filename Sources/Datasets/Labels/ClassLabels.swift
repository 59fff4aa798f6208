import Communication
import Foundation
import Imaging
import Support
import Synchronization
import TensorCore

/// What the labels of a source come from.
package enum LabelOrigin: Sendable {
    case none
    /// The folder that contains the item.
    case folders
    /// A label of each item, read with the item. The text describes them in messages: "the .cls files".
    case items(String)
    /// A table with the labels of all items, which is read at once.
    case table(String, LabelTable)
}

/// The labels of all items of a source, read on first use.
package final class LabelTable: Sendable {
    private let read: @Sendable () throws(ImageError) -> [String?]
    private let known = Mutex<[String?]?>(nil)

    init(_ read: @escaping @Sendable () throws(ImageError) -> [String?]) { self.read = read }

    func labels() throws(ImageError) -> [String?] {
        if let labels = known.withLock({ $0 }) { return labels }
        let labels = try read()
        known.withLock { $0 = labels }
        return labels
    }
}

/// Which labels `prepare` stores.
package enum LabelChoice: Sendable, Equatable {
    /// Those of the source: CIFAR's, of an array of labels, `.cls` files, `dataset.json`, or the names of
    /// folders.
    case automatic
    /// None.
    case none
    /// Those of a CSV file.
    case file(String)

    /// - Parameter text: the value of `--labels`; nil without it.
    package init(_ text: String?) {
        switch text {
        case nil: self = .automatic
        case "none": self = .none
        case let path?: self = .file(path)
        }
    }
}

/// The classes of a source's items.
package struct ClassLabels: Sendable {
    /// Sorted: numbers by value, other names bytewise. Empty if there are no classes.
    package let names: [String]
    /// For each item, the index of its class in `names`; empty if there are no classes.
    package let indices: [Int32]
    /// Distinguishes labels that do not follow from the source's content and version 0.1's rule; nil for those
    /// that do.
    package let hash: String?

    package static let none = ClassLabels(names: [], indices: [], hash: nil)

    private init(names: [String], indices: [Int32], hash: String?) {
        (self.names, self.indices, self.hash) = (names, indices, hash)
    }

    /// Reads the labels of the first `count` items. Collective: each rank reads a share, or rank 0 the tables.
    ///
    /// - Throws: `DatasetError` if only some items have a label, or if two sources of labels contradict each
    ///   other.
    package static func read(
        _ choice: LabelChoice, of source: any ImageSource, count: Int, on communicator: Communicator
    ) throws -> ClassLabels {
        var labels = LabelList.absent
        var origin = "--labels none"
        var isFolders = false
        switch choice {
        case .none: break
        case .automatic:
            (origin, isFolders) = (source.labelOrigin.text, source.labelOrigin.isFolders)
            labels = try LabelList.own(of: source, count: count, on: communicator)
        case .file(let path):
            origin = path
            let file = try communicator.fromRoot("reading \(path)") {
                try asDatasetError { try LabelFile(path).labels(of: source, count: count) }
            }
            labels = file
            let own = source.labelOrigin
            if !own.isFolders {
                let others = try LabelList.own(of: source, count: count, on: communicator)
                try communicator.collectively("comparing labels") {
                    try compare(file, path, with: others, own.text, source, count)
                }
            }
        }
        return try communicator.collectively("reading labels") {
            try make(labels, origin, isFolders: isFolders, source, count)
        }
    }

    private static func make(
        _ labels: LabelList, _ origin: String, isFolders: Bool, _ source: any ImageSource, _ count: Int
    ) throws(DatasetError) -> ClassLabels {
        // A folder in which all images are is not a class.
        let hasClasses = !labels.names.isEmpty && !(isFolders && labels.names.count < 2)
        let missing = hasClasses ? labels.indices.indices.filter { labels.indices[$0] < 0 } : []
        if !missing.isEmpty {
            let examples = shortList(missing.prefix(4).map { source.itemName(at: $0) }, limit: 3)
            throw DatasetError(
                .mismatch,
                isFolders
                    ? "\(source.name): \(missing.count) of \(count) images are not in a class folder (\(examples)), but "
                        + "the others are in \(labels.names.count) folders; move them, or ignore the folders with "
                        + "--labels none"
                    : "\(source.name): \(missing.count) of \(count) images have no label in \(origin) (\(examples)); add "
                        + "the labels, or ignore all with --labels none")
        }
        let sorted = hasClasses ? sortedNames(labels.names) : []
        var indices: [Int32] = []
        if hasClasses {
            let places = Dictionary(uniqueKeysWithValues: sorted.enumerated().map { ($1, Int32($0)) })
            let mapping = labels.names.map { places[$0] ?? 0 }
            indices = labels.indices.map { mapping[Int($0)] }
        }
        return ClassLabels(
            names: sorted, indices: indices,
            hash: isAsEarlier(sorted, indices, source, count) ? nil : hash(sorted, indices))
    }

    /// Numbers by value, if all names are whole numbers; otherwise bytewise.
    static func sortedNames(_ names: [String]) -> [String] {
        let numbers = names.compactMap { name in Int(name).map { (name, $0) } }
        guard numbers.count == names.count else { return names.sorted(by: ItemNames.precedes) }
        return numbers.sorted { ($0.1, $0.0) < ($1.1, $1.0) }.map(\.0)
    }

    /// Whether version 0.1 stored the same labels: the names of folders, sorted bytewise, if every item has one
    /// and there are at least two.
    private static func isAsEarlier(
        _ names: [String], _ indices: [Int32], _ source: any ImageSource, _ count: Int
    ) -> Bool {
        guard names.isEmpty else {
            return names == names.sorted(by: ItemNames.precedes) && names.count > 1
                && (0..<count).allSatisfy { source.earlierLabel(at: $0) == names[Int(indices[$0])] }
        }
        var earlier: Set<String> = []
        for index in 0..<count {
            guard let label = source.earlierLabel(at: index) else { return true }
            earlier.insert(label)
        }
        return earlier.count < 2
    }

    private static func hash(_ names: [String], _ indices: [Int32]) -> String {
        var hash = SourceFingerprint()
        for name in names { hash.add(name) }
        hash.add(indices.withUnsafeBytes { [UInt8]($0) })
        return hash.text
    }

    /// Throws if two sources of labels disagree about an item that both have a label for.
    private static func compare(
        _ file: LabelList, _ path: String, with own: LabelList, _ origin: String, _ source: any ImageSource,
        _ count: Int
    ) throws(DatasetError) {
        guard !own.names.isEmpty else { return }
        for index in 0..<count where file.indices[index] >= 0 && own.indices[index] >= 0 {
            let (given, found) = (
                file.names[Int(file.indices[index])], own.names[Int(own.indices[index])]
            )
            if given == found { continue }
            throw DatasetError(
                .mismatch,
                "\(source.name): \(source.itemName(at: index)) is \"\(given)\" in \(path), but \"\(found)\" in \(origin); "
                    + "leave out --labels, or remove the other labels")
        }
    }
}

extension ImageSource {
    /// The label that version 0.1 stored.
    fileprivate func earlierLabel(at index: Int) -> String? {
        switch labelOrigin {
        case .folders, .items(CIFARBatches.labelOrigin): try? label(at: index)
        default: ItemNames.label(itemName(at: index))
        }
    }
}

extension LabelOrigin {
    /// For messages.
    var text: String {
        switch self {
        case .none: "the source"
        case .folders: "its folders"
        case .items(let text), .table(let text, _): text
        }
    }

    fileprivate var isFolders: Bool {
        if case .folders = self { return true }
        return false
    }
}

/// Labels of items before the classes are sorted.
struct LabelList: Codable {
    var names: [String] = []
    /// -1 without a label.
    var indices: [Int32] = []

    static let absent = LabelList()

    init() {}

    init(_ labels: some Sequence<String?>) {
        var places: [String: Int32] = [:]
        for label in labels {
            guard let label else {
                indices.append(-1)
                continue
            }
            if let known = places[label] {
                indices.append(known)
            } else {
                places[label] = Int32(names.count)
                indices.append(Int32(names.count))
                names.append(label)
            }
        }
    }

    /// The source's own labels. Collective.
    static func own(
        of source: any ImageSource, count: Int, on communicator: Communicator
    ) throws -> LabelList {
        switch source.labelOrigin {
        case .none: return .absent
        case .table(let name, let table):
            return try communicator.fromRoot("reading \(name)") {
                LabelList(try asDatasetError { try table.labels() }.prefix(count))
            }
        case .folders, .items: break
        }
        let share = try communicator.collectively("reading the labels of \(source.name)") {
            let first = count * communicator.rank / communicator.size
            let end = count * (communicator.rank + 1) / communicator.size
            return LabelList(try asDatasetError { try labels(of: source, first..<end) })
        }
        var places: [String: Int32] = [:]
        var all = LabelList()
        let names = try communicator.allGather(share.names)
        let indices = try communicator.allGather(share.indices.withUnsafeBytes { [UInt8]($0) })
        for (names, bytes) in zip(names, indices) {
            let mapping = names.map { name in
                if let known = places[name] { return known }
                let place = Int32(all.names.count)
                places[name] = place
                all.names.append(name)
                return place
            }
            bytes.withUnsafeBytes { raw in
                for at in stride(from: 0, to: raw.count, by: 4) {
                    let index = raw.loadUnaligned(fromByteOffset: at, as: Int32.self)
                    all.indices.append(index < 0 ? -1 : mapping[Int(index)])
                }
            }
        }
        return all
    }

    /// Reads labels on all threads of this process.
    private static func labels(of source: any ImageSource, _ items: Range<Int>) throws -> [String?] {
        guard case .items = source.labelOrigin else { return try items.map { try source.label(at: $0) } }
        var labels = [String?](repeating: nil, count: items.count)
        try labels.withUnsafeMutableBufferPointer { labels in
            let labels = labels
            try Processor.concurrently(items.count) {
                labels[$0] = try source.label(at: items.lowerBound + $0)
            }
        }
        return labels
    }
}
