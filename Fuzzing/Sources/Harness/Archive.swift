/// An archive of stored members.
public func zip(_ members: [(name: String, bytes: [UInt8])]) -> [UInt8] {
    func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
    var out: [UInt8] = []
    var directory: [UInt8] = []
    for member in members {
        let size = member.bytes.count
        let common =
            little(20, 2) + little(0, 8) + little(Int(crc32(member.bytes)), 4) + little(size, 4)
            + little(size, 4)
            + little(member.name.utf8.count, 2) + little(0, 2)
        directory +=
            little(0x0201_4B50, 4) + little(20, 2) + common + little(0, 10) + little(out.count, 4)
            + Array(member.name.utf8)
        out += little(0x0403_4B50, 4) + common + Array(member.name.utf8) + member.bytes
    }
    return out + directory + little(0x0605_4B50, 4) + little(0, 4) + little(members.count, 2)
        + little(members.count, 2) + little(directory.count, 4) + little(out.count, 4) + little(0, 2)
}

private let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
}

private func crc32(_ bytes: [UInt8]) -> UInt32 {
    ~bytes.reduce(~UInt32(0)) { table[Int(($0 ^ UInt32($1)) & 0xFF)] ^ $0 >> 8 }
}
