"""The messages of the wire protocol: ``openiap_pb2`` is generated from ``openiap.proto`` by the build."""
