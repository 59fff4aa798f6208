/// The most recently used of what is costly to make: a tape for each shape.
struct RecentCache<Key: Equatable, Value> {
    private var entries: [(key: Key, value: Value)] = []  // oldest first
    private let capacity: Int

    init(capacity: Int) { self.capacity = capacity }

    /// What is kept.
    var values: [Value] { entries.map(\.value) }

    /// The value for a key, made where there is none; the one that was used longest ago makes room for it.
    mutating func value(for key: Key, make: () -> Value) -> Value {
        if let index = entries.firstIndex(where: { $0.key == key }) {
            let entry = entries.remove(at: index)
            entries.append(entry)
            return entry.value
        }
        if entries.count >= capacity { entries.removeFirst() }
        let value = make()
        entries.append((key, value))
        return value
    }
}
