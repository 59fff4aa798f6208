/// An LRU cache for values that are expensive to create, such as one tape per shape.
struct RecentCache<Key: Equatable, Value> {
    private var entries: [(key: Key, value: Value)] = []  // oldest first
    private let capacity: Int

    init(capacity: Int) { self.capacity = capacity }

    /// The cached values.
    var values: [Value] { entries.map(\.value) }

    /// Returns the value for a key; creates it if necessary, evicting the least recently used value.
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
