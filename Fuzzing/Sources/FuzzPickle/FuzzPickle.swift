import FileFormats
import Harness
import Support

/// A pickle: the whole result is walked, and every object is tried as an array.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    expectCleanly(knows: { $0 is PickleError }) {
        let ordered = PickleGlobal("collections", "OrderedDict")
        let pickle = try Pickle(
            input, path: "x", permitted: PickledArray.globals.union([ordered]),
            limits: PickleLimits(values: 10_000, opcodes: 20_000))
        precondition(pickle.end <= count)
        var queue = [pickle.root]
        // Values may contain themselves.
        for _ in 0..<10_000 {
            guard let value = queue.popLast() else { break }
            precondition(!value.kind.isEmpty)
            _ = (value.stringValue, value.intValue, value.doubleValue, value.boolValue)
            _ = value.withBytes { $0.reduce(UInt8(0), ^) }
            queue += (value.elements ?? []).prefix(100)
            for entry in (value.entries ?? []).prefix(100) { queue += [entry.key, entry.value] }
            if let identifier = value.persistentID { queue.append(identifier) }
            guard let object = value.object else { continue }
            queue += object.arguments.prefix(100)
            if let state = object.state { queue.append(state) }
            expectCleanly(knows: { $0 is PickleError }) {
                let array = try PickledArray(value, name: "array")
                precondition(array.shape.reduce(array.itemSize, *) == array.bytes.count)
            }
        }
    }
    return 0
}
