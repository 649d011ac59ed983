"""TensorFlow's SequenceExample and its parts as protobuf messages, declared in code so that no file is generated.

An Example is read as a SequenceExample too (see `protobuf_decoding.parse_record`). The messages have their own
descriptor pool, so they do not clash with TensorFlow's in a program that imports both.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tensorflow"


def _add_field(
    message: Any,
    name: str,
    number: int,
    kind: int,
    repeated: bool = False,
    type_name: str | None = None,
    oneof: bool = False,
) -> None:
    field = message.field.add(name=name, number=number, type=kind)
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    if type_name:
        field.type_name = f".{_PACKAGE}.{type_name}"
    if oneof:
        field.oneof_index = 0


def _add_map(file: Any, message_name: str, field_name: str, entry_name: str, value_type: str) -> None:
    message = file.message_type.add(name=message_name)
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    _add_field(entry, "key", 1, _FIELD.TYPE_STRING)
    _add_field(entry, "value", 2, _FIELD.TYPE_MESSAGE, type_name=value_type)
    _add_field(message, field_name, 1, _FIELD.TYPE_MESSAGE, repeated=True, type_name=f"{message_name}.{entry_name}")


def _declare() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="topgb/example.proto", package=_PACKAGE, syntax="proto3")
    lists = {"BytesList": _FIELD.TYPE_BYTES, "FloatList": _FIELD.TYPE_FLOAT, "Int64List": _FIELD.TYPE_INT64}
    for name, kind in lists.items():
        _add_field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, name) in enumerate(
        [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")], start=1
    ):
        _add_field(feature, field, number, _FIELD.TYPE_MESSAGE, type_name=name, oneof=True)
    feature_list = file.message_type.add(name="FeatureList")
    _add_field(feature_list, "feature", 1, _FIELD.TYPE_MESSAGE, repeated=True, type_name="Feature")
    _add_map(file, "Features", "feature", "FeatureEntry", "Feature")
    _add_map(file, "FeatureLists", "feature_list", "FeatureListEntry", "FeatureList")
    sequence = file.message_type.add(name="SequenceExample")
    _add_field(sequence, "context", 1, _FIELD.TYPE_MESSAGE, type_name="Features")
    _add_field(sequence, "feature_lists", 2, _FIELD.TYPE_MESSAGE, type_name="FeatureLists")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_declare())


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Features = _message_class("Features")
SequenceExample = _message_class("SequenceExample")
