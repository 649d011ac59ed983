"""Remarks on what was missing or damaged in a video."""

from topgb.video.extract import Notes


def remarks_on(notes: Notes, vectors: int) -> list[str]:
    """One remark for each thing that a user should know about a video from which `vectors` vectors were made."""
    remarks = []
    for what, missing in (("picture", notes.no_picture), ("sound", notes.no_sound)):
        if missing == vectors:
            remarks.append(f"it has no {what}")
        elif missing:
            remarks.append(f"{missing:,} of its {vectors:,} moments have no {what}")
    if notes.damaged:
        remarks.append(f"{notes.damaged:,} damaged packet{'' if notes.damaged == 1 else 's'} left out")
    return remarks
